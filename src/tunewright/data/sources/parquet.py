"""Parquet files and folders of them."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from tunewright.data.columns import Column, Rejects
from tunewright.data.sources.base import BATCH_ROWS, ROW, Source, with_rows
from tunewright.errors import DataError


def read_parquet(path: Path, format: str) -> Source:
    """A Parquet file, or a folder of files with the same columns.

    Raises:
        DataError: a file is no Parquet, is damaged, or has columns that cannot be used.
    """
    files = sorted(path.glob("*.parquet")) if path.is_dir() else [path]
    if not files:
        raise DataError(
            "the folder holds no Parquet file", file=path, expected="files named *.parquet", fix="check the path"
        )
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
        elif pa.types.is_nested(field.type) or pa.types.is_binary(field.type):
            raise DataError(
                f"the column {field.name!r} cannot be used",
                file=path,
                found=str(field.type),
                expected="numbers, text, true/false, times, lists of texts or whole numbers, or lists of a fixed size",
                fix=f"flatten {field.name!r}, or leave it out of the file",
            )
    return Source(format="parquet", parts={"all": partial(_batches, files)}, files=files, known=known)


def is_label_list(kind: pa.DataType) -> bool:
    """Lists that can be the labels of a row: of texts or of whole numbers."""
    if not pa.types.is_list(kind) and not pa.types.is_large_list(kind):
        return False
    return pa.types.is_string(kind.value_type) or pa.types.is_integer(kind.value_type)


def _schema(file: Path) -> pa.Schema:
    try:
        return pq.read_schema(file)
    except (pa.ArrowInvalid, OSError) as error:
        raise _broken(file, error) from error


def _batches(files: list[Path], rejects: Rejects) -> Iterator[pa.Table]:
    first = 1
    for file in files:
        try:
            with pq.ParquetFile(file) as parquet:
                for batch in parquet.iter_batches(BATCH_ROWS):
                    table = pa.Table.from_batches([batch])
                    if ROW in table.column_names:
                        table = table.drop_columns([ROW])
                    yield with_rows(plain(table), first)
                    first += table.num_rows
        except (pa.ArrowInvalid, OSError) as error:
            raise _broken(file, error) from error


def plain(table: pa.Table) -> pa.Table:
    """Columns as text or float64, as the other sources give them; fixed-size lists as float32, others as lists of text."""
    columns: dict[str, pa.ChunkedArray] = {}
    for name, column in zip(table.column_names, table.columns):
        kind = column.type
        if pa.types.is_fixed_size_list(kind):
            columns[name] = column.cast(pa.list_(pa.float32(), kind.list_size))
        elif is_label_list(kind):
            columns[name] = column.cast(pa.list_(pa.string()))
        elif pa.types.is_dictionary(kind):
            columns[name] = pc.cast(column, pa.string())
        else:
            columns[name] = column.cast(pa.string())
    return pa.table(columns)


def _broken(file: Path, error: Exception) -> DataError:
    if isinstance(error, FileNotFoundError):
        return DataError("there is no such file", file=file, fix="check the path")
    return DataError(
        f"the file is not a whole Parquet file: {error}",
        file=file,
        expected="a Parquet file",
        fix="restore it from a copy, or write it again",
    )
