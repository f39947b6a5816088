"""Lists and records in data: read natively from every format, checked row by row, and the target of a task that wants them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tunewright.data.checks.table import check
from tunewright.data.prepare.prepare import prepare
from tunewright.data.prepared import Prepared
from tunewright.data.structure import (
    CommonForm,
    arrow_type,
    count_not_finite,
    count_values,
    fit,
    form_of,
    form_of_type,
    merged,
)
from tunewright.errors import DataError
from tunewright.recipe.schema import Data, Split

SENTENCES = [
    (["Anna", "lives", "in", "Berlin"], ["B-PER", "O", "O", "B-LOC"]),
    (["no", "no", "name"], ["O", "O", "O"]),
    ([], []),
]
BOXES = [
    [{"bbox": [1, 2, 3.5, 4], "label": "cat"}, {"bbox": [0, 0, 9, 9], "label": "dog"}],
    [],
    [{"bbox": [5, 5, 1, 1], "label": None}],
]
ROWS = 60


def read(source: Path, kind: Any = "structure", **data: Any) -> Prepared:
    return prepare(Data(source=str(source), **data), seed=0, target_kind=kind, base=Path("."))


def cells(prepared: Prepared, column: str) -> dict[int, Any]:
    """The cells of a column by row number, of all splits."""
    tables = [prepared.table(split) for split in prepared.manifest.splits]
    return {row: cell for t in tables for row, cell in zip(t["_row"].to_pylist(), t[column].to_pylist(), strict=True)}


def records() -> list[dict[str, Any]]:
    return [
        {"id": f"r{i}", "tokens": SENTENCES[i % 3][0], "tags": SENTENCES[i % 3][1], "boxes": BOXES[i % 3]}
        for i in range(ROWS)
    ]


def write(folder: Path, format: str, extra: list[dict[str, Any]] | None = None) -> Path:
    rows = [*records(), *(extra or [])]
    path = folder / f"data.{format}"
    if format == "jsonl":
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    elif format == "csv":
        quoted = [
            ",".join('"' + (v if isinstance(v, str) else json.dumps(v)).replace('"', '""') + '"' for v in row.values())
            for row in rows
        ]
        path.write_text("\n".join([",".join(rows[0]), *quoted]) + "\n")
    else:
        pq.write_table(pa.Table.from_pylist(rows), path)
    return path


@pytest.mark.parametrize("format", ["jsonl", "csv", "parquet"])
def test_every_format_gives_the_same_lists_and_records(tmp_path: Path, format: str) -> None:
    prepared = read(write(tmp_path, format))
    manifest = prepared.manifest
    assert (manifest.target, manifest.target_kind, manifest.classes) == ("tags", "structure", None)
    assert sorted(manifest.input) == ["boxes", "id", "tokens"]
    assert manifest.column("tags").form == ["string"]
    assert manifest.column("boxes").form == [{"bbox": ["number"], "label": "string"}]
    expected = {i + 1: row for i, row in enumerate(records())}
    for column in ("tokens", "tags", "boxes"):
        assert cells(prepared, column) == {row: record[column] for row, record in expected.items()}
    assert prepared.table("train").schema.field("boxes").type == arrow_type([{"bbox": ["number"], "label": "string"}])


@pytest.mark.parametrize("format", ["jsonl", "parquet"])
def test_the_tasks_target_kind_decides_between_labels_and_tags(tmp_path: Path, format: str) -> None:
    path = write(tmp_path, format)
    labels = read(path, "labels", target="tags")
    assert labels.manifest.column("tags").kind == labels.manifest.column("tokens").kind == "labels"
    assert cells(labels, "tags")[2] == ["O"] and labels.manifest.classes == ["B-LOC", "B-PER", "O"]
    tags = read(path, target="tags")
    assert cells(tags, "tags")[2] == ["O", "O", "O"] and tags.manifest.classes is None


def test_records_are_carried_along_and_are_no_input_of_other_tasks(tmp_path: Path) -> None:
    path = tmp_path / "data.jsonl"
    rows = [{"x": i, "label": "ab"[i % 2], "boxes": BOXES[i % 3], "about": {"size": [i, 2]}} for i in range(ROWS)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    prepared = read(path, "category")
    assert prepared.manifest.input == ["x"] and prepared.manifest.target == "label"
    assert cells(prepared, "about")[5] == {"size": [4, 2]}
    with pytest.raises(DataError, match="holds lists or records"):
        read(path, "category", target="boxes")
    with pytest.raises(DataError, match="holds no classes"):
        read(path, "labels", target="boxes")
    with pytest.raises(DataError, match="does not hold lists or records"):
        read(path, target="label")
    assert read(path).manifest.target == "boxes"


def test_names_of_classes_are_kept_inside_lists_and_records(tmp_path: Path) -> None:
    import datasets

    tag, animal = datasets.ClassLabel(names=["O", "B-PER", "B-LOC"]), datasets.ClassLabel(names=["cat", "dog"])
    box = datasets.Sequence(datasets.Value("float32"), length=4)
    features = datasets.Features(
        {
            "tokens": datasets.Sequence(datasets.Value("string")),
            "ner_tags": datasets.Sequence(tag),
            "pos_tags": datasets.Sequence(datasets.Value("int64")),
            "objects": datasets.Sequence({"bbox": box, "category": animal}),
            "boxes": [{"bbox": box, "category": animal}],
            "vector": box,
        }
    )
    rows = {
        "tokens": [["Anna", "sees", "Berlin"]] * ROWS,
        "ner_tags": [[1, 0, 2]] * ROWS,
        "pos_tags": [[4, 7, 4]] * ROWS,
        "objects": [{"bbox": [[0, 1, 2, 3]], "category": [1]}] * ROWS,
        "boxes": [[{"bbox": [0, 1, 2, 3], "category": 0}]] * ROWS,
        "vector": [[1, 2, 3, 4]] * ROWS,
    }
    made = datasets.Dataset.from_dict(rows, features=features)
    made.save_to_disk(tmp_path / "saved")
    made.to_parquet(tmp_path / "t.parquet")
    for path in (tmp_path / "saved", tmp_path / "t.parquet"):
        prepared = read(path)
        assert prepared.manifest.target == "ner_tags"
        assert prepared.manifest.column("vector").kind == "array"
        assert cells(prepared, "ner_tags")[1] == ["B-PER", "O", "B-LOC"]
        assert cells(prepared, "pos_tags")[1] == [4, 7, 4]
        assert cells(prepared, "objects")[1] == {"bbox": [[0, 1, 2, 3]], "category": ["dog"]}
        assert cells(prepared, "boxes")[1] == [{"bbox": [0, 1, 2, 3], "category": "cat"}]


MISFITS: list[tuple[str, Any, str]] = [
    ("tags", "O O", "one value"),
    ("tags", {"a": 1}, "structure"),
    ("tags", [["O"]], "structure"),
    ("boxes", [{"bbox": [1, 2, "x", 4], "label": "cat"}], "cannot be stored"),
    ("boxes", [{"bbox": ["1", "2"], "label": "cat"}], "structure"),
    ("boxes", [{"bbox": 3, "label": "cat"}], "structure"),
    ("boxes", [{"bbox": [1, 2, 3, float("nan")], "label": "cat"}], "not finite"),
    ("boxes", [{"bbox": [1, 2, 3, 2**70], "label": "cat"}], "cannot be stored"),
    ("boxes", [7, {"bbox": [1]}], "cannot be stored"),
]


@pytest.mark.parametrize(("column", "value", "reason"), MISFITS)
def test_rows_of_another_structure_are_skipped_counted_and_named(
    tmp_path: Path, column: str, value: Any, reason: str
) -> None:
    for format in ("jsonl", "csv"):
        prepared = read(write(tmp_path, format, [{**records()[0], column: value}]), target="tags")
        (entry,) = prepared.manifest.skipped
        assert entry.count == 1 and prepared.manifest.used == ROWS
        assert "61" in entry.examples[0] and column in entry.examples[0] + entry.reason and entry.fix
        if format == "jsonl":
            assert reason in entry.reason


def test_parquet_numbers_that_are_not_finite_and_missing_targets_are_skipped(tmp_path: Path) -> None:
    extra = [{**records()[0], "boxes": [{"bbox": [1, np.inf], "label": "x"}]}, {**records()[0], "tags": None}]
    prepared = read(write(tmp_path, "parquet", extra))
    assert {entry.reason: entry.examples[0][:6] for entry in prepared.manifest.skipped} == {
        "boxes holds a number that is not finite": "row 61",
        "the target 'tags' is missing": "row 62",
    }


def test_a_column_of_text_that_is_only_like_json_stays_text(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    lines = [f'"[{i}] see how ""there"" it is","[""O"", ""O""]"' for i in range(ROWS)]
    path.write_text("text,tags\n" + "\n".join(lines) + "\n")
    manifest = read(path).manifest
    assert (manifest.column("text").kind, manifest.column("tags").kind) == ("text", "structure")
    # Another task sees text, as it always did.
    assert read(path, "category").manifest.column("tags").kind == "category"


@pytest.mark.parametrize(
    ("split", "data"),
    [
        (Split(by="stratified"), {}),
        (Split(by="group", column="tokens"), {}),
        (Split(by="time", column="boxes"), {}),
        (Split(by="within", column="id", order="tokens"), {}),
    ],
)
def test_rows_are_not_divided_by_lists(tmp_path: Path, split: Split, data: dict[str, Any]) -> None:
    with pytest.raises(DataError, match="cannot be divided by") as caught:
        read(write(tmp_path, "jsonl"), split=split, **data)
    assert "by: random" in caught.value.message


def test_a_group_of_ids_divides_sentences(tmp_path: Path) -> None:
    assert read(write(tmp_path, "jsonl"), split=Split(by="group", column="id")).manifest.used == ROWS


def test_checks_see_equal_rows_and_skip_what_needs_classes(tmp_path: Path) -> None:
    found = {finding.code: finding for finding in check(read(write(tmp_path, "jsonl"), input=["tokens", "boxes"]))}
    assert found["duplicates"].count == ROWS - 3
    assert not {"class-balance", "label-errors", "conflicting-labels", "leaking-column"} & set(found)
    assert "structure: tokens, tags, boxes" in found["types"].examples


@pytest.mark.parametrize(
    ("values", "form"),
    [
        ([[1, 2], [3.5]], ["number"]),
        ([["a"], [1]], ["string"]),
        ([[], [True]], ["boolean"]),
        ([[], []], [None]),
        ([{"a": 1}, {"b": [None]}], {"a": "integer", "b": [None]}),
        ([{"a": 1}, {"a": "x"}, {"a": "y"}], {"a": "string"}),
        ([{}], None),
    ],
)
def test_the_commonest_form(values: list[Any], form: Any) -> None:
    common = CommonForm()
    for value in values:
        common.add(form_of(value))
    assert common.form == form


def test_a_form_and_its_arrow_type_are_the_same_thing() -> None:
    form = form_of([{"bbox": [1.5], "label": "x", "hard": True, "part": {"ids": [[1]]}}])
    assert form_of_type(arrow_type(form)) == form
    with pytest.raises(ValueError, match="both a list and text"):
        merged(["integer"], "string")


def test_fit_says_where() -> None:
    with pytest.raises(ValueError, match=r"^\[1\]\.bbox\[0\] holds 'x' instead of a number"):
        fit([{"bbox": [1]}, {"bbox": ["x"]}], [{"bbox": ["number"]}])
    with pytest.raises(ValueError, match=r"^\[0\] has a field 'extra'"):
        fit([{"extra": 1}], [{"bbox": ["number"]}])
    assert fit([{}, {"bbox": [1, None]}], [{"bbox": ["number"]}]) == [None, {"bbox": [1.0, None]}]


def test_values_are_counted_in_each_cell_wherever_it_lies() -> None:
    cells = pa.array([[[1.0, 2.0], [np.nan]], None, [], [[np.inf, 1.0, 1.0]]], pa.list_(pa.list_(pa.float64())))
    assert count_values(cells).tolist() == [3, 0, 0, 3]
    assert count_not_finite(cells).tolist() == [1, 0, 0, 1]
    assert count_values(cells.slice(2)).tolist() == [0, 3]
    boxes = pa.array([[{"b": [1.0, np.nan], "l": "x"}], [None]], arrow_type([{"b": ["number"], "l": "string"}]))
    assert count_not_finite(boxes).tolist() == [1, 0]
    assert count_values(boxes)[0] == 3


def hostile(case: str) -> list[Any]:
    """Cells of a column, the good ones first."""
    return {
        "deep": [["O"]] * ROWS + [[[[["O"] * 2] * 2] * 2]],
        "too many values": [["O"]] * ROWS + [["O"] * 101],
        "too many fields": [{"a": 1}] * ROWS + [{f"k{i}": i for i in range(21)}],
        "a new field in each record": [{"a": 1}] * ROWS + [{f"k{i}": i} for i in range(40)],
        "an empty record": [{"a": 1}] * ROWS + [{}],
        "half of a character": [["O"]] * ROWS + [["\ud800"]],
    }[case]


HOSTILE = {
    "deep": 1,
    "too many values": 1,
    "too many fields": 1,
    "a new field in each record": 21,
    "an empty record": 1,
}


@pytest.mark.parametrize("case", HOSTILE)
@pytest.mark.parametrize("format", ["jsonl", "csv", "parquet"])
def test_what_is_beyond_the_bounds_is_skipped_and_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, format: str, case: str
) -> None:
    for name, value in {"DEPTH": 3, "VALUES": 100, "FIELDS": 20}.items():
        monkeypatch.setenv(f"TUNEWRIGHT_LIMIT_STRUCTURE_{name}", str(value))
    column = hostile(case)
    if format == "parquet" and case != "too many values":
        kind = arrow_type(["string"])
        for _ in range(3):
            kind = pa.list_(kind)
        records = pa.struct([(f"k{i}", pa.int64()) for i in range(21)])
        kinds = {"deep": kind, "too many fields": records, "a new field in each record": records}
        if case not in kinds:
            return
        pq.write_table(pa.table({"x": pa.array([None] * ROWS, kinds[case])}), tmp_path / "t.parquet")
        with pytest.raises(DataError, match="cannot be used"):
            read(tmp_path / "t.parquet")
        return
    path = tmp_path / f"t.{format}"
    if format == "parquet":
        pq.write_table(pa.table({"x": column}), path)
    elif format == "jsonl":
        path.write_text("".join(json.dumps({"x": cell}) + "\n" for cell in column))
    else:
        path.write_text("x\n" + "".join('"' + json.dumps(cell).replace('"', '""') + '"\n' for cell in column))
    manifest = read(path).manifest
    (entry,) = manifest.skipped
    assert (entry.count, manifest.used) == (HOSTILE[case], len(column) - HOSTILE[case])
    assert "61" in entry.examples[0] or case == "a new field in each record"


def test_half_of_a_character_in_a_cell_is_named(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    column = hostile("half of a character")
    path.write_text("x\n" + "".join('"' + json.dumps(cell).replace('"', '""') + '"\n' for cell in column))
    (entry,) = read(path).manifest.skipped
    assert entry.count == 1 and "row 61" in entry.examples[0]
