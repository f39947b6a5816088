"""Damaged and impossible data: never a traceback, always the file, the place and what to do; nothing dropped in silence."""

from __future__ import annotations

import gzip
import io
import json
import random
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image
from pydantic import ValidationError

from tunewright.data.prepare.prepare import prepare
from tunewright.data.prepared import Prepared
from tunewright.errors import DataError
from tunewright.recipe.schema import Data, Split

GOOD_CSV = "x,y,label\n" + "".join(f"{i},{i * i},{'a' if i % 2 else 'b'}\n" for i in range(60))
GOOD_JSONL = "".join(json.dumps({"x": i, "label": "a" if i % 2 else "b"}) + "\n" for i in range(60))


def read(path: Path, kind: str | None = "category", **data: object) -> Prepared:
    return prepare(Data(source=str(path), **data), seed=0, target_kind=kind, base=Path("."))  # type: ignore[arg-type]


def refused(path: Path, kind: str | None = "category", **data: object) -> DataError:
    with pytest.raises(DataError) as caught:
        read(path, kind, **data)
    error = caught.value
    assert error.exit_code == 2
    assert path.name in error.message or str(path) in error.message
    assert "fix:" in error.message or "expected:" in error.message
    return error


CSV: dict[str, bytes] = {
    "empty": b"",
    "blank": b"\n\n\n",
    "header only": b"x,label\n",
    "one row": b"x,label\n1,a\n",
    "same name twice": b"x,x,label\n1,2,a\n",
    "no name": b"x,,label\n1,2,a\n",
    "latin-1": "x,label\n1,café\n".encode("latin-1"),
    "latin-1 far down": (GOOD_CSV + "1,2,caf\xe9\n").encode("latin-1"),
    "utf-16": GOOD_CSV.encode("utf-16"),
    "nul": b"x,label\n\x00,a\n",
    "open quote": b'x,label\n"1,a\n2,b\n',
    "binary": bytes(range(256)) * 20,
    "one class": b"x,label\n" + b"1,a\n" * 50,
    "all targets missing": b"x,label\n" + b"1,\n" * 50,
    "every row too long": b"x,label\n" + b"1,a,b\n" * 50,
    "every row too short": b"x,y,label\n" + b"1,a\n" * 50,
    "measurements as classes": b"x,label\n" + b"".join(b"%d,%.3f\n" % (i, i * 0.37) for i in range(200)),
}


@pytest.mark.parametrize("name", CSV)
def test_malformed_csv(tmp_path: Path, name: str) -> None:
    path = tmp_path / "data.csv"
    path.write_bytes(CSV[name])
    if name == "one class":
        from tunewright.tasks.base.targets import CATEGORY

        with pytest.raises(DataError, match="1 class"):
            CATEGORY.fit(read(path), None)
        return
    refused(path)


@pytest.mark.parametrize(
    ("content", "reason", "count", "named"),
    [
        (GOOD_CSV + "1,2\n", "number of cells", 1, "2 cells instead of 3"),
        (GOOD_CSV + "1,2,a,b\n" * 5, "number of cells", 5, "line 62"),
        (GOOD_CSV + "1,2,\n3,4,NA\n", "missing", 2, "row 61"),
        (GOOD_CSV + "one,2,a\n", "x is not a number", 1, "'one'"),
        (GOOD_CSV + "inf,2,a\n", "x is not a number", 1, "row 61"),
    ],
)
def test_rows_skipped_of_a_csv_are_counted_and_named(
    tmp_path: Path, content: str, reason: str, count: int, named: str
) -> None:
    path = tmp_path / "data.csv"
    path.write_text(content)
    manifest = read(path).manifest
    (entry,) = manifest.skipped
    assert reason in entry.reason and entry.count == count and named in " ".join(entry.examples) and entry.fix
    assert manifest.used == 60 and manifest.read == 60 + count


SETTINGS: list[tuple[dict[str, object], str]] = [
    ({"target": "lable"}, "did you mean 'label'"),
    ({"target": "nothing"}, "no column"),
    ({"input": ["x", "z"]}, "no column"),
    ({"input": ["label"], "target": "label"}, "among the inputs"),
    ({"split": Split(by="group")}, "needs a column"),
    ({"split": Split(by="time")}, "needs a column"),
    ({"split": Split(by="group", column="patient")}, "no column"),
    ({"split": Split(by="time", column="wen")}, "no column"),
    ({"format": "jsonl"}, "no JSON object"),
    ({"format": "parquet"}, "Parquet"),
    ({"format": "npz"}, "npz"),
    ({"format": "idx"}, "idx"),
    ({"format": "images"}, "not a file"),
    ({"limit": 3}, "empty"),
]


@pytest.mark.parametrize(("data", "said"), SETTINGS, ids=[said for _, said in SETTINGS])
def test_a_good_file_and_a_wrong_recipe(tmp_path: Path, data: dict[str, object], said: str) -> None:
    path = tmp_path / "data.csv"
    path.write_text(GOOD_CSV)
    assert said in refused(path, **data).message


def test_regression_on_text(tmp_path: Path) -> None:
    path = tmp_path / "data.csv"
    path.write_text(GOOD_CSV)
    assert "does not hold numbers" in refused(path, "number").message


def test_no_such_source(tmp_path: Path) -> None:
    refused(tmp_path / "missing.csv")
    assert "did you mean digits" in refused(Path("digitz")).message
    (tmp_path / "file.xyz").write_text("a")
    assert "format" in refused(tmp_path / "file.xyz").message
    with pytest.raises(DataError):
        read(Path("hub:nobody/nothing"))
    with pytest.raises(ValidationError, match="not a path"):  # a recipe cannot name it at all
        read(Path("a\0b"))


BAD_LINES = [
    "{",
    "[1]",
    "3",
    "null",
    "{'a': 1}",
    '{"a": }',
    "text",
    '{"x": [1, 2], "label": "a"}',
    '{"x": {"y": 1}, "label": "a"}',
    "\xff",
    '{"a": 1} extra',
    "{" * 2000,
]


@pytest.mark.parametrize("line", BAD_LINES, ids=lambda line: line[:20])
def test_bad_lines_of_jsonl_are_counted_and_named(tmp_path: Path, line: str) -> None:
    path = tmp_path / "data.jsonl"
    path.write_bytes(GOOD_JSONL.encode() + line.encode("latin-1") + b"\n")
    manifest = read(path).manifest
    assert manifest.used == 60 and manifest.skipped[0].count == 1 and "line 61" in manifest.skipped[0].examples[0]


@pytest.mark.parametrize("content", ["", "\n\n", "{}\n", "{\n", "3\n4\n", '{"x": 1}\n', '{"label": "a"}\n'])
def test_malformed_jsonl(tmp_path: Path, content: str) -> None:
    path = tmp_path / "data.jsonl"
    path.write_text(content)
    refused(path)


def parquet_bytes(table: pa.Table) -> bytes:
    buffer = io.BytesIO()
    pq.write_table(table, buffer)
    return buffer.getvalue()


GOOD_PARQUET = parquet_bytes(pa.table({"x": list(range(60)), "label": ["a", "b"] * 30}))
PARQUET: dict[str, bytes] = {
    "empty": b"",
    "text": b"x,label\n1,a\n",
    "magic only": b"PAR1",
    "first half": GOOD_PARQUET[: len(GOOD_PARQUET) // 2],
    "without footer": GOOD_PARQUET[:-8],
    "without start": GOOD_PARQUET[8:],
    "nested": parquet_bytes(pa.table({"x": [[1], [2, 3]], "label": ["a", "b"]})),
    "struct": parquet_bytes(pa.table({"x": [{"a": 1}, {"a": 2}], "label": ["a", "b"]})),
    "binary": parquet_bytes(pa.table({"x": [b"1", b"2"], "label": ["a", "b"]})),
    "no rows": parquet_bytes(pa.table({"x": pa.array([], pa.int64()), "label": pa.array([], pa.string())})),
}


@pytest.mark.parametrize("name", PARQUET)
def test_malformed_parquet(tmp_path: Path, name: str) -> None:
    path = tmp_path / "data.parquet"
    path.write_bytes(PARQUET[name])
    refused(path)


def idx(shape: tuple[int, ...], kind: int = 8, values: bytes | None = None, magic: bytes = b"\0\0") -> bytes:
    content = bytes(int(np.prod(shape))) if values is None else values
    return magic + bytes([kind, len(shape)]) + b"".join(n.to_bytes(4, "big") for n in shape) + content


IMAGES, LABELS = idx((30, 4, 4), values=bytes(range(240)) * 2), idx((30,), values=bytes(i % 2 for i in range(30)))
IDX: dict[str, tuple[bytes, bytes]] = {
    "images empty": (b"", LABELS),
    "labels empty": (IMAGES, b""),
    "images text": (b"hello, world, this is text", LABELS),
    "bad magic": (b"\1\0" + IMAGES[2:], LABELS),
    "bad type": (idx((30, 4, 4), kind=7), LABELS),
    "no dimensions": (b"\0\0\x08\0", LABELS),
    "too many dimensions": (idx((1, 1, 1, 1, 1, 1)), LABELS),
    "header cut off": (IMAGES[:9], LABELS),
    "images cut off": (IMAGES[:-1], LABELS),
    "images too long": (IMAGES + b"\0", LABELS),
    "huge": (b"\0\0\x08\x03" + b"\xff" * 12, LABELS),
    "no image": (idx((0, 4, 4)), LABELS),
    "images one-dimensional": (LABELS, LABELS),
    "images of floats": (idx((30, 4, 4), kind=0x0D, values=bytes(30 * 16 * 4)), LABELS),
    "fewer labels": (IMAGES, idx((29,))),
    "more labels": (IMAGES, idx((31,))),
    "labels are images": (IMAGES, IMAGES),
    "labels cut off": (IMAGES, LABELS[:-3]),
}


@pytest.mark.parametrize("zipped", [False, True])
@pytest.mark.parametrize("name", IDX)
def test_malformed_idx(tmp_path: Path, name: str, zipped: bool) -> None:
    ending = ".gz" if zipped else ""
    for part, content in zip(("train-images-idx3-ubyte", "train-labels-idx1-ubyte"), IDX[name]):
        (tmp_path / f"{part}{ending}").write_bytes(gzip.compress(content) if zipped else content)
    with pytest.raises(DataError) as caught:
        read(tmp_path)
    assert "idx" in caught.value.message and ("fix:" in caught.value.message)


def test_idx_without_labels_and_broken_gzip(tmp_path: Path) -> None:
    (tmp_path / "train-images-idx3-ubyte.gz").write_bytes(gzip.compress(IMAGES)[:40])
    assert "no file of labels" in refused(tmp_path).message
    (tmp_path / "train-labels-idx1-ubyte").write_bytes(LABELS)
    assert "cannot be read" in refused(tmp_path).message


def npz(**arrays: object) -> bytes:
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)  # type: ignore[arg-type]
    return buffer.getvalue()


X, Y = np.arange(120.0).reshape(60, 2), np.arange(60) % 2
NPZ: dict[str, bytes] = {
    "empty": b"",
    "text": b"hello",
    "zip magic": b"PK\x03\x04",
    "cut off": npz(x=X, y=Y)[:300],
    "no arrays": npz(),
    "no x": npz(a=X, y=Y),
    "no y": npz(x=X),
    "lengths differ": npz(x=X, y=Y[:-1]),
    "y two-dimensional": npz(x=X, y=X),
    "x one-dimensional": npz(x=Y, y=Y),
    "x of text": npz(x=np.array([["a", "b"]] * 60), y=Y),
    "no rows": npz(x=X[:0], y=Y[:0]),
    "objects": npz(x=np.array([[{"a": 1}, None]] * 60, dtype=object), y=Y),
    "parts differ": npz(x_train=X, y_train=Y, x_test=np.ones((9, 3)), y_test=np.ones(9)),
    "a plain .npy": (lambda b: (np.save(b, X), b.getvalue())[1])(io.BytesIO()),
}


@pytest.mark.parametrize("name", NPZ)
def test_malformed_npz(tmp_path: Path, name: str) -> None:
    path = tmp_path / "data.npz"
    path.write_bytes(NPZ[name])
    refused(path)


def picture(mode: str = "L", size: tuple[int, int] = (6, 6), format: str = "PNG") -> bytes:
    buffer = io.BytesIO()
    Image.new(mode, size).save(buffer, format=format)
    return buffer.getvalue()


GOOD_PNG, GOOD_JPG = picture(), picture(format="JPEG")
BAD_PICTURES: dict[str, bytes] = {
    "empty": b"",
    "text": b"this is no picture",
    "cut off png": GOOD_PNG[: len(GOOD_PNG) // 2],
    "cut off jpg": GOOD_JPG[: len(GOOD_JPG) // 2],
    "png magic": GOOD_PNG[:8],
    "flipped": GOOD_PNG[:40] + bytes(b ^ 0xFF for b in GOOD_PNG[40:]),
    "html": b"<html><body>404</body></html>",
    "zip": b"PK\x03\x04" + bytes(60),
    "bomb": GOOD_PNG[:16] + (60_000).to_bytes(4, "big") * 2 + GOOD_PNG[24:],
}


@pytest.mark.parametrize("name", BAD_PICTURES)
def test_pictures_that_cannot_be_read_are_counted_and_named(tmp_path: Path, name: str) -> None:
    for label in "ab":
        (tmp_path / label).mkdir()
        for index in range(20):
            (tmp_path / label / f"{index}.png").write_bytes(GOOD_PNG)
    (tmp_path / "a" / "broken.png").write_bytes(BAD_PICTURES[name])
    try:
        manifest = read(tmp_path).manifest
    except DataError as error:
        # The header of a damaged picture may still give a size, then another one than all others.
        assert "different sizes" in error.message and "broken.png" in error.message
        return
    assert manifest.used == 40 and manifest.skipped[0].count == 1 and "broken.png" in manifest.skipped[0].examples[0]


def test_folders_that_are_no_data(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    refused(tmp_path / "empty")
    (tmp_path / "flat").mkdir()
    (tmp_path / "flat" / "a.png").write_bytes(GOOD_PNG)
    assert "labelled" in refused(tmp_path / "flat").message
    (tmp_path / "bad" / "a").mkdir(parents=True)
    (tmp_path / "bad" / "a" / "x.png").write_bytes(b"nothing")
    refused(tmp_path / "bad")
    (tmp_path / "saved").mkdir()
    (tmp_path / "saved" / "dataset_info.json").write_text("{")
    refused(tmp_path / "saved")


def damaged(content: bytes, seed: int) -> bytes:
    """Truncated, flipped, repeated or cut somewhere, by the seed."""
    chance = random.Random(seed)
    place, length = chance.randrange(len(content)), chance.randrange(1, 30)
    ways: list[Callable[[], bytes]] = [
        lambda: content[:place],
        lambda: (
            content[:place]
            + bytes(b ^ (1 << chance.randrange(8)) for b in content[place : place + length])
            + content[place + length :]
        ),
        lambda: content[:place] + content[place + length :],
        lambda: content[:place] + content[place : place + length] * 3 + content[place + length :],
        lambda: content[:place] + bytes(chance.randrange(256) for _ in range(length)) + content[place:],
    ]
    return chance.choice(ways)()


FUZZED = {"csv": GOOD_CSV.encode(), "jsonl": GOOD_JSONL.encode(), "parquet": GOOD_PARQUET, "npz": npz(x=X, y=Y)}


@pytest.mark.parametrize("format", FUZZED)
def test_damaged_files_are_read_or_refused(tmp_path: Path, format: str) -> None:
    for seed in range(60):
        path = tmp_path / f"{seed}.{format}"
        path.write_bytes(damaged(FUZZED[format], seed))
        try:
            manifest = read(path).manifest
            assert manifest.read == manifest.used + sum(entry.count for entry in manifest.skipped)
        except DataError as error:
            assert error.exit_code == 2 and path.name in error.message
