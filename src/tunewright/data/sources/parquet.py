"""Parquet files and folders of them."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from tunewright.data.image.resize_crop import Framing
from tunewright.data.manifest import Column, Rejects
from tunewright.data.source import BATCH_ROWS, ROW, Source, with_rows
from tunewright.data.sources.cells import decode_cells, is_picture_type, name_label_lists, name_labels, named_cells
from tunewright.data.sources.guard import Guard
from tunewright.data.sources.images import BATCH_IMAGES, picture_column, pictures_at_once
from tunewright.errors import DataError
from tunewright.limits import DECODE_BYTES


def read_parquet(path: Path, format: str, *, framing: Framing | None = None) -> Source:
    """A Parquet file, or a folder of files with the same columns. Cells of bytes are pictures.

    Args:
        framing: gives all pictures one size; None: they have one.

    Raises:
        DataError: a file is no Parquet, is damaged, or has columns that cannot be used.
    """
    files = sorted(path.glob("*.parquet")) if path.is_dir() else [path]
    if not files:
        raise DataError(
            "the folder holds no Parquet file", file=path, expected="files named *.parquet", fix="check the path"
        )
    guard = Guard(files)
    schemas = [_schema(file) for file in files]
    for file, schema in zip(files[1:], schemas[1:]):
        if schema.names != schemas[0].names:
            raise DataError(
                "the files have different columns",
                file=file,
                found=", ".join(schema.names),
                expected=", ".join(schemas[0].names),
                fix="give all files the same columns",
            )
    known: dict[str, Column] = {}
    for field in schemas[0]:
        if pa.types.is_fixed_size_list(field.type):
            known[field.name] = Column(name=field.name, kind="array", shape=(field.type.list_size,))
        elif is_label_list(field.type):
            known[field.name] = Column(name=field.name, kind="labels")
        elif is_picture_type(field.type):
            cells = named_cells(_tables(files, [field.name], guard), field.name)
            known[field.name] = picture_column(field.name, cells, framing, path)
        elif pa.types.is_nested(field.type) and not is_turns_type(field.type):
            raise DataError(
                f"the column {field.name!r} cannot be used",
                file=path,
                found=str(field.type),
                expected="numbers, text, true/false, times, pictures, turns of a conversation, lists of texts or whole numbers, or of a fixed size",
                fix=f"flatten {field.name!r}, or leave it out of the file",
            )
    labels, lists = _class_names(schemas[0])
    return Source(
        format="parquet",
        parts={"all": partial(_batches, files, guard, known, framing, labels, lists)},
        files=files,
        known=known,
        target=next(iter(labels)) if len(labels) == 1 else None,
    )


Names = dict[str, list[str]]


def _class_names(schema: pa.Schema) -> tuple[Names, Names]:
    """The class names of columns that hold class numbers, and of columns that hold lists of them, where the datasets
    library has noted them."""
    try:
        noted = json.loads((schema.metadata or {})[b"huggingface"])["info"]["features"]
        columns = {name: entry for name, entry in noted.items() if name in schema.names and isinstance(entry, dict)}
        inner = {name: entry["feature"] for name, entry in columns.items() if isinstance(entry.get("feature"), dict)}
        return _named(columns), _named(inner)
    except (KeyError, TypeError, ValueError, AttributeError):
        return {}, {}


def _named(features: dict[str, dict[str, Any]]) -> Names:
    return {
        name: [str(entry) for entry in feature["names"]]
        for name, feature in features.items()
        if feature.get("_type") == "ClassLabel"
    }


def is_label_list(kind: pa.DataType) -> bool:
    """Lists that can be the labels of a row: of texts or of whole numbers."""
    if not pa.types.is_list(kind) and not pa.types.is_large_list(kind):
        return False
    return pa.types.is_string(kind.value_type) or pa.types.is_integer(kind.value_type)


def is_turns_type(kind: pa.DataType) -> bool:
    """Lists of who says what: kept as JSON text, as the other sources keep them."""
    if (not pa.types.is_list(kind) and not pa.types.is_large_list(kind)) or not pa.types.is_struct(kind.value_type):
        return False
    names = {field.name for field in kind.value_type}
    return {"role", "content"} <= names or {"from", "value"} <= names


def _schema(file: Path) -> pa.Schema:
    try:
        return pq.read_schema(file)
    except (pa.ArrowInvalid, OSError) as error:
        raise _broken(file, error) from error


def _tables(files: list[Path], columns: list[str] | None, guard: Guard, rows: int = BATCH_IMAGES) -> Iterator[pa.Table]:
    """
    Args:
        rows: in one table, at most.
    """
    rows, done = min(rows, guard.rows), 0
    for file in files:
        try:
            guard.require(done + rows)
            with pq.ParquetFile(file) as parquet:
                for batch in parquet.iter_batches(rows, columns=columns):
                    yield pa.Table.from_batches([batch])
                    done += batch.num_rows
                    guard.require(done + rows)
        except (pa.ArrowInvalid, OSError) as error:
            raise _broken(file, error) from error


def _batches(
    files: list[Path],
    guard: Guard,
    known: Mapping[str, Column],
    framing: Framing | None,
    labels: Names,
    lists: Names,
    rejects: Rejects,
) -> Iterator[pa.Table]:
    first = 1
    pictures = [column for column in known.values() if column.kind == "image"]
    for table in _tables(files, None, guard, pictures_at_once(pictures) if pictures else BATCH_ROWS):
        if ROW in table.column_names:
            table = table.drop_columns([ROW])
        keep = np.ones(table.num_rows, dtype=bool)
        made: dict[str, pa.Array] = {
            column.name: decode_cells(table[column.name], column, framing, first, keep, rejects) for column in pictures
        }
        made |= {name: name_labels(table[name], names) for name, names in labels.items()}
        made |= {name: name_label_lists(table[name], names) for name, names in lists.items()}
        others = plain(table.drop_columns(list(made)))
        columns = {name: made[name] if name in made else others[name] for name in table.column_names}
        numbered = with_rows(pa.table(columns), first)
        first += table.num_rows
        yield numbered if keep.all() else numbered.filter(pa.array(keep))


def plain(table: pa.Table) -> pa.Table:
    """Columns as text or float64, as the other sources give them; fixed-size lists as float32, others as lists of text,
    conversations as JSON text."""
    columns: dict[str, pa.ChunkedArray] = {}
    for name, column in zip(table.column_names, table.columns):
        kind = column.type
        if pa.types.is_fixed_size_list(kind):
            columns[name] = column.cast(pa.list_(pa.float32(), kind.list_size))
        elif is_label_list(kind):
            columns[name] = column.cast(pa.list_(pa.string()))
        elif is_turns_type(kind):
            cells = [None if turns is None else json.dumps(turns, ensure_ascii=False) for turns in column.to_pylist()]
            columns[name] = pa.chunked_array([pa.array(cells, pa.string())])
        elif pa.types.is_dictionary(kind):
            columns[name] = _written_out(column, name)
        else:
            columns[name] = column.cast(pa.string())
    return pa.table(columns)


def _written_out(column: pa.ChunkedArray, name: str) -> pa.ChunkedArray:
    """A dictionary-encoded column as text.

    Raises:
        DataError: its values are so long and used so often that the text would take too much memory.
    """
    lengths = [pc.binary_length(pc.cast(chunk.dictionary, pa.string())).take(chunk.indices) for chunk in column.chunks]
    size = sum(pc.sum(found).as_py() or 0 for found in lengths)
    DECODE_BYTES.require(size, "some rows of the file take too much memory", place=f"column {name!r}")
    return pc.cast(column, pa.string())


def _broken(file: Path, error: Exception) -> DataError:
    if isinstance(error, FileNotFoundError):
        return DataError("there is no such file", file=file, fix="check the path")
    return DataError(
        f"the file is not a whole Parquet file: {error}",
        file=file,
        expected="a Parquet file",
        fix="restore it from a copy, or write it again",
    )
