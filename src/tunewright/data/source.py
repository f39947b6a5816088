"""Define a source of data: parts that can be streamed as Arrow batches, any number of times."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pyarrow as pa

from tunewright.data.manifest import Column, Rejects

# Rows in one batch while streaming: large enough to be fast, small enough that memory stays flat.
BATCH_ROWS = 65_536
ROW = "_row"

Batches = Callable[[Rejects], Iterator[pa.Table]]


@dataclass(frozen=True, kw_only=True)
class Source:
    """Data that can be streamed.

    parts: "all", or the parts that the source itself is divided into: "train", "valid", "test". Each gives tables of at
    most BATCH_ROWS rows with an int64 column `_row`, the row's number in the source counted from 1, and notes the rows
    that it skips.
    """

    format: str
    parts: Mapping[str, Batches]
    files: list[Path] = field(default_factory=list)
    known: Mapping[str, Column] = field(default_factory=dict)
    """Columns whose kind is certain; all others hold text or numbers, and their kind is inferred."""
    target: str | None = None
    """The target column, where the source itself says which it is."""
    licence: str | None = None
    citation: str | None = None
    content: str | None = None
    """A hash of the content, for sources that are not files."""


def image_column(name: str, pixels: np.ndarray) -> pa.Array:
    """Return [N, H, W, C] uint8 as an Arrow column of fixed-size bytes, without a copy per row."""
    flat = np.ascontiguousarray(pixels).reshape(len(pixels), -1)
    return pa.Array.from_buffers(pa.binary(flat.shape[1]), len(flat), [None, pa.py_buffer(flat)])


def array_column(values: np.ndarray) -> pa.Array:
    """Return [N, …] numbers as an Arrow column of fixed-size lists of float32."""
    flat = np.ascontiguousarray(values, dtype=np.float32).reshape(len(values), -1)
    return pa.FixedSizeListArray.from_arrays(pa.array(flat.reshape(-1)), flat.shape[1])


def with_rows(table: pa.Table, first: int) -> pa.Table:
    """Return the table with its row numbers, beginning with `first`."""
    return table.append_column(ROW, pa.array(np.arange(first, first + table.num_rows, dtype=np.int64)))


def from_arrays(columns: Mapping[str, pa.Array], first: int = 1) -> Batches:
    """Stream a part that is in memory."""

    def batches(rejects: Rejects) -> Iterator[pa.Table]:
        table = with_rows(pa.table(dict(columns)), first)
        for start in range(0, table.num_rows, BATCH_ROWS):
            yield table.slice(start, BATCH_ROWS)

    return batches
