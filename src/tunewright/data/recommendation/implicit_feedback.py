"""Which rows count as liked: a number from some value on is yes, up to another no, and between them neither."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from functools import partial

import numpy as np
import pyarrow as pa

from tunewright.data.column_types import missing_column
from tunewright.data.manifest import Column, Rejects
from tunewright.data.source import ROW, Batches, Source
from tunewright.recipe.schema import Liked

NO, YES = "no", "yes"


def binarize(source: Source, column: str, liked: Liked, file: str) -> Source:
    """Return the source with "yes" and "no" in place of a column of numbers; rows that are neither are skipped and counted.

    Raises:
        DataError: there is no such column.
    """
    part = next(iter(source.parts.values()))
    names = [name for name in next(iter(part(Rejects())), pa.table({})).column_names if name != ROW]
    if column not in names:
        raise missing_column("data.target", column, names, file)
    return replace(
        source,
        parts={name: partial(_binarized, batches, column, liked) for name, batches in source.parts.items()},
        known={**source.known, column: Column(name=column, kind="category")},
        target=column,
    )


def _binarized(batches: Batches, column: str, liked: Liked, rejects: Rejects) -> Iterator[pa.Table]:
    for table in batches(rejects):
        values = _numbers(table[column])
        yes, no = values >= liked.at_least, values < liked.at_least
        if liked.not_at_most is not None:
            no = values <= liked.not_at_most
        _note(table, column, np.isnan(values), "holds no number", rejects)
        _note(table, column, ~np.isnan(values) & ~yes & ~no, "is neither liked nor disliked", rejects)
        place = table.column_names.index(column)
        binarized = table.set_column(place, column, pa.array(np.where(yes, YES, NO)))
        yield binarized.filter(pa.array(yes | no))


def _numbers(cells: pa.ChunkedArray) -> np.ndarray:
    """Return [N] float64, NaN where there is no number."""
    if pa.types.is_floating(cells.type):
        return np.asarray(cells.to_numpy(), np.float64)

    def number(cell: str | None) -> float:
        try:
            return float(cell or "nan")
        except ValueError:
            return float("nan")

    return np.array([number(cell) for cell in cells.to_pylist()], np.float64)


def _note(table: pa.Table, column: str, chosen: np.ndarray, reason: str, rejects: Rejects) -> None:
    rows = np.flatnonzero(chosen)
    for position, index in enumerate(rows[:3]):
        cell, number = table[column][int(index)].as_py(), table[ROW][int(index)].as_py()
        count = len(rows) - 2 if position == 2 else 1
        rejects.add(f"{column!r} {reason}", f"row {number}: {cell!r}", "change data.liked, or correct the rows", count)
