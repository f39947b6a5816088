"""Parquet files and folders of them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from tunewright.data.image.resize_crop import Framing
from tunewright.data.manifest import Rejects
from tunewright.data.source import Source
from tunewright.data.sources.arrow_columns import ArrowColumns, arrow_columns
from tunewright.data.sources.cells import named_cells
from tunewright.data.sources.guard import Guard
from tunewright.data.sources.images import BATCH_IMAGES
from tunewright.errors import DataError


def read_parquet(path: Path, format: str, *, framing: Framing | None = None) -> Source:
    """Read a Parquet file, or a folder of files with the same columns. Cells of bytes are pictures.

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
    columns = arrow_columns(
        schemas[0],
        _features(schemas[0]),
        framing,
        lambda name: named_cells(_tables(files, [name], guard), name),
        path,
    )
    return Source(
        format="parquet",
        parts={"all": partial(_batches, files, guard, columns)},
        files=files,
        known=columns.known,
        target=columns.target,
    )


def _features(schema: pa.Schema) -> dict[str, object]:
    """Return the columns as the datasets library has noted them; empty where it has not."""
    try:
        noted = json.loads((schema.metadata or {})[b"huggingface"])["info"]["features"]
    except (KeyError, TypeError, ValueError, RecursionError):
        return {}
    return noted if isinstance(noted, dict) else {}


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


def _batches(files: list[Path], guard: Guard, columns: ArrowColumns, rejects: Rejects) -> Iterator[pa.Table]:
    first = 1
    for table in _tables(files, None, guard, columns.rows_at_once):
        yield columns.read(table, first, rejects)
        first += table.num_rows


def _broken(file: Path, error: Exception) -> DataError:
    if isinstance(error, FileNotFoundError):
        return DataError("there is no such file", file=file, fix="check the path")
    return DataError(
        f"the file is not a whole Parquet file: {error}",
        file=file,
        expected="a Parquet file",
        fix="restore it from a copy, or write it again",
    )
