"""Sources, types, splits and the prepared folder, on real files."""

from __future__ import annotations

import gzip
import json
import os
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image
from sklearn.datasets import load_digits, load_wine

from tunewright.data.prepare.prepare import PrepareSettings, prepare
from tunewright.data.prepare.splits import ByGroup, Strata
from tunewright.data.prepared import Prepared, column_array
from tunewright.errors import DataError
from tunewright.recipe.schema import Data, Split


def prepared(source: Path | str, kind: str | None = "category", base: Path = Path("."), **data: object) -> Prepared:
    return prepare(Data(source=str(source), **data), seed=0, target_kind=kind, base=base)  # type: ignore[arg-type]


def everything(found: Prepared) -> pa.Table:
    table = pa.concat_tables([found.table(split) for split in found.manifest.splits])
    return table.sort_by("_row")


def wine_rows() -> list[dict[str, object]]:
    wine = load_wine()
    return [
        {**{name: float(value) for name, value in zip(wine.feature_names, row)}, "label": f"cultivar {label}"}
        for row, label in zip(wine.data, wine.target)
    ]


def write_wine(folder: Path, format: str) -> Path:
    rows = wine_rows()
    path = folder / f"wine.{format}"
    if format in ("csv", "tsv"):
        comma = "," if format == "csv" else "\t"
        path.write_text(
            "\n".join([comma.join(rows[0]), *(comma.join(str(v) for v in row.values()) for row in rows)]) + "\n"
        )
    elif format == "jsonl":
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    elif format == "parquet":
        pq.write_table(pa.Table.from_pylist(rows), path)
    return path


@pytest.mark.parametrize("format", ["csv", "tsv", "jsonl", "parquet"])
def test_tables_say_the_same_in_every_format(tmp_path: Path, format: str) -> None:
    found = prepared(write_wine(tmp_path, format))
    table = everything(found)
    assert found.manifest.format == format
    assert (found.manifest.read, found.manifest.used, found.manifest.skipped) == (178, 178, [])
    assert found.manifest.classes == ["cultivar 0", "cultivar 1", "cultivar 2"]
    assert table["alcohol"].to_pylist() == [row["alcohol"] for row in wine_rows()]
    assert table["_row"].to_pylist() == list(range(1, 179))
    assert found.manifest.target == "label" and "named" in found.manifest.target_reason


@pytest.mark.parametrize("format", ["csv", "jsonl"])
def test_gzip(tmp_path: Path, format: str) -> None:
    path = write_wine(tmp_path, format)
    zipped = path.with_name(path.name + ".gz")
    zipped.write_bytes(gzip.compress(path.read_bytes()))
    assert everything(prepared(zipped)).equals(everything(prepared(path)))


@pytest.mark.parametrize("layout", ["classes", "parts"])
def test_folder_of_pictures(tmp_path: Path, layout: str) -> None:
    digits = load_digits()
    for index, (pixels, label) in enumerate(zip(digits.images[:60], digits.target[:60])):
        part = "" if layout == "classes" else "test" if index < 12 else "train"
        folder = tmp_path / "pictures" / part / str(label)
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray((pixels * 15).astype(np.uint8)).save(folder / f"{index:03}.png")
    found = prepared(tmp_path / "pictures", split=Split(valid=0.2))
    column = found.manifest.column("image")
    assert column.shape == (8, 8, 1) and found.manifest.used == 60
    assert found.manifest.classes == [str(k) for k in range(10)]
    total = sum(int(column_array(found.table(split), column).sum()) for split in found.manifest.splits)
    assert total == int((digits.images[:60] * 15).sum())
    if layout == "parts":
        assert found.rows("test") == 12


def test_colour_and_resize(tmp_path: Path) -> None:
    for label, size in (("a", (20, 10)), ("b", (7, 9))):
        (tmp_path / "p" / label).mkdir(parents=True)
        for index in range(10):
            Image.new("RGB", size, (255, 0, index)).save(tmp_path / "p" / label / f"{index}.jpg", quality=95)
    with pytest.raises(DataError, match="different sizes"):
        prepared(tmp_path / "p")
    found = prepared(tmp_path / "p", resize=(6, 5), split=Split(valid=0.2, test=0.2))
    assert found.manifest.column("image").shape == (6, 5, 3)


def test_unlabelled_pictures(tmp_path: Path) -> None:
    for index in range(20):
        Image.new("L", (4, 4), index).save(tmp_path / f"{index}.png")
    found = prepared(tmp_path, kind=None, labelled=False)
    assert found.manifest.target is None and found.manifest.used == 20


def test_npz_with_official_parts(tmp_path: Path) -> None:
    digits = load_digits()
    pixels = (digits.images * 15).astype(np.uint8)
    np.savez(
        tmp_path / "d.npz",
        x_train=pixels[:1500],
        y_train=digits.target[:1500],
        x_test=pixels[1500:],
        y_test=digits.target[1500:],
    )
    found = prepared(tmp_path / "d.npz", split=Split(valid=0.1))
    assert found.rows("test") == 297 and found.rows("train") + found.rows("valid") == 1500
    assert "test part" in found.manifest.split_rule


def test_npz_of_measurements(tmp_path: Path) -> None:
    wine = load_wine()
    np.savez(tmp_path / "w.npz", x=wine.data, y=wine.target)
    found = prepared(tmp_path / "w.npz")
    column = found.manifest.column("x")
    assert column.kind == "array" and column.shape == (13,)
    first = column_array(everything(found), column)[0]
    assert np.allclose(first, wine.data[0].astype(np.float32))


def test_saved_datasets_folder(tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets")
    digits = load_digits()
    features = datasets.Features(
        {"image": datasets.Image(), "label": datasets.ClassLabel(names=[f"digit {k}" for k in range(10)])}
    )
    rows = {
        "image": [Image.fromarray((p * 15).astype(np.uint8)) for p in digits.images[:80]],
        "label": digits.target[:80].tolist(),
    }
    datasets.DatasetDict({"train": datasets.Dataset.from_dict(rows, features=features)}).save_to_disk(
        tmp_path / "saved"
    )
    found = prepared(tmp_path / "saved", split=Split(valid=0.2, test=0.2))
    assert found.manifest.column("image").shape == (8, 8, 1)
    assert found.manifest.classes == [f"digit {k}" for k in range(10)] and found.manifest.used == 80
    total = sum(
        int(column_array(found.table(split), found.manifest.column("image")).sum()) for split in found.manifest.splits
    )
    assert total == int((digits.images[:80] * 15).sum())


def test_mnist_is_whole() -> None:
    found = prepared("mnist", split=Split(valid=0))
    assert (found.rows("train"), found.rows("test")) == (60_000, 10_000)
    pixels = column_array(found.table("train"), found.manifest.column("image"))
    assert pixels.shape == (60_000, 28, 28, 1)
    # The mean and deviation that are quoted for MNIST everywhere.
    assert abs(pixels.mean() / 255 - 0.1307) < 1e-4 and abs(pixels.std() / 255 - 0.3081) < 1e-4


def test_columns_get_their_kind(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    lines = ["id,age,city,when,story,label"]
    for index in range(100):
        lines.append(
            f"a{index},{index},{'Rome' if index % 3 else 'Oslo'},2026-01-{index % 28 + 1:02},a long story about the number {index} and what became of it,{index % 2}"
        )
    lines[51] = lines[51].replace(",50,", ",fifty,")
    path.write_text("\n".join(lines))
    found = prepared(path, split=Split(test=0.2))
    kinds = {column.name: column.kind for column in found.manifest.columns}
    assert kinds == {
        "id": "category",
        "age": "number",
        "city": "category",
        "when": "time",
        "story": "text",
        "label": "category",
    }
    assert found.manifest.used == 99
    assert found.manifest.skipped[0].count == 1 and "fifty" in found.manifest.skipped[0].examples[0]


def test_numeric_classes_are_in_numeric_order(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_text("x,label\n" + "".join(f"{i},{i % 12}\n" for i in range(240)))
    assert prepared(path).manifest.classes == [str(k) for k in range(12)]


def test_missing_targets_are_counted_and_named(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_text("x,label\n" + "".join(f"{i},{'' if i in (3, 9, 27, 81) else i % 2}\n" for i in range(100)))
    entry = prepared(path).manifest.skipped[0]
    assert entry.count == 4 and len(entry.examples) == 3 and "row 4" in entry.examples[0]


@pytest.mark.parametrize("by", ["random", "stratified"])
def test_proportions_are_exact_but_for_a_row_each_block(by: str) -> None:
    rows = 10_000
    table = pa.table({"label": [str(index % 7) for index in range(rows)]})
    assigned = Strata(0, 0.1, 0.2, "label" if by == "stratified" else None)(table)
    assert abs((assigned == 1).sum() - 0.1 * rows) <= 14 and abs((assigned == 2).sum() - 0.2 * rows) <= 14
    if by == "stratified":
        for k in range(7):
            mine = assigned[np.arange(rows) % 7 == k]
            assert abs((mine == 2).mean() - 0.2) < 0.01


def test_a_split_does_not_depend_on_how_rows_stream() -> None:
    table = pa.table({"label": [str(index % 3) for index in range(5000)]})
    whole = Strata(3, 0.1, 0.1, "label")(table)
    pieces = Strata(3, 0.1, 0.1, "label")
    streamed = np.concatenate([pieces(table.slice(start, 37)) for start in range(0, 5000, 37)])
    assert (whole == streamed).all()
    assert (whole != Strata(4, 0.1, 0.1, "label")(table)).any()


def test_a_group_is_never_divided() -> None:
    groups = [f"patient {index % 97}" for index in range(3000)]
    assigned = ByGroup(0, 0.2, 0.2, "g")(pa.table({"g": groups}))
    for group in set(groups):
        assert len({int(s) for s, g in zip(assigned, groups) if g == group}) == 1
    assert set(assigned.tolist()) == {0, 1, 2}


def test_the_latest_rows_are_the_test(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    days = [f"2026-{1 + i // 28:02}-{1 + i % 28:02}" for i in range(200)]
    order = np.random.default_rng(0).permutation(200)
    path.write_text("x,when,label\n" + "".join(f"{i},{days[i]},{i % 2}\n" for i in order))
    found = prepared(path, split=Split(valid=0.1, test=0.1, by="time", column="when"))
    latest = {split: sorted(found.table(split)["when"].to_pylist()) for split in ("train", "valid", "test")}
    assert latest["train"][-1] < latest["valid"][0] <= latest["valid"][-1] < latest["test"][0]
    assert [found.rows(split) for split in ("train", "valid", "test")] == [160, 20, 20]


def test_preparing_again_returns_at_once_and_a_change_is_noticed(own_cache: Path, tmp_path: Path) -> None:
    path = write_wine(tmp_path, "csv")
    first = prepared(path)
    stamp = (first.folder / "manifest.json").stat().st_mtime_ns
    assert prepared(path).folder == first.folder
    assert (first.folder / "manifest.json").stat().st_mtime_ns == stamp
    path.write_text(path.read_text().replace("14.23", "99.99"))
    assert prepared(path).folder != first.folder


def test_a_damaged_cache_entry_is_made_again(own_cache: Path, tmp_path: Path) -> None:
    path = write_wine(tmp_path, "csv")
    first = prepared(path)
    content = (first.folder / "train.parquet").read_bytes()
    (first.folder / "train.parquet").write_bytes(content[:100])
    assert (prepared(path).folder / "train.parquet").read_bytes() == content


def test_nothing_is_left_behind_when_preparing_fails(own_cache: Path, tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_text("x,label\n1,a\n2,b\n")
    with pytest.raises(DataError, match="empty"):
        prepared(path)
    assert not list((own_cache / "prepared").iterdir())


def test_the_out_folder_must_be_new(tmp_path: Path) -> None:
    path = write_wine(tmp_path, "csv")
    out = tmp_path / "out"
    data = Data(source=str(path))
    prepare(data, settings=PrepareSettings(out=out), seed=0, target_kind="category", base=Path("."))
    assert sorted(os.listdir(out)) == ["manifest.json", "test.parquet", "train.parquet", "valid.parquet"]
    with pytest.raises(DataError, match="not empty"):
        prepare(data, settings=PrepareSettings(out=out), seed=0, target_kind="category", base=Path("."))


def test_limit(tmp_path: Path) -> None:
    found = prepared("mnist", limit=500, split=Split(valid=0.1))
    assert found.manifest.used == 1000 and found.rows("test") == 500
