"""Which rows can be used, and every column of them as its kind is stored."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from tunewright.data.manifest import Column, Rejects
from tunewright.data.prepare.multilabel import as_lists, split_cells
from tunewright.data.source import ROW, Source
from tunewright.data.structure import count_not_finite, count_values
from tunewright.errors import shorten
from tunewright.limits import STRUCTURE_VALUES

PARTS = ("train", "all", "valid", "test")


def usable_rows(
    table: pa.Table, columns: dict[str, Column], used: set[Any], target: str | None, rejects: Rejects
) -> pa.Table:
    """The rows that can be used, with every column as its kind is stored; skipped rows are counted and named."""
    keep = np.ones(table.num_rows, dtype=bool)
    stored: dict[str, Any] = {ROW: table[ROW]}
    for name, column in columns.items():
        values = table[name]
        if column.kind == "number":
            stored[name], bad = _numbers(values)
            if name in used and bad.any():
                _reject(
                    table,
                    bad & keep,
                    name,
                    f"{name} is not a number",
                    rejects,
                    f"correct these cells, or remove {name!r} from data.input",
                )
                keep &= ~bad
        elif column.kind == "labels":
            stored[name] = as_lists(values) if column.separator is None else split_cells(values, column.separator)
        elif column.kind == "structure":
            stored[name] = values
            for bad, reason, fix in _unusable(values) if name in used else ():
                _reject(table, bad & keep, name, f"{name} {reason}", rejects, fix)
                keep &= ~bad
        elif column.kind not in ("image", "array", "audio"):
            stored[name] = values.cast(pa.string())
        else:
            stored[name] = values
    if target is not None:
        empty = np.asarray(pc.is_null(stored[target], nan_is_null=True))
        if (empty & keep).any():
            _reject(
                table,
                empty & keep,
                target,
                f"the target {target!r} is missing",
                rejects,
                f"fill in {target!r} for these rows, or remove them",
            )
            keep &= ~empty
    ordered = pa.table({name: stored[name] for name in [*columns, ROW]})
    return ordered if keep.all() else ordered.filter(pa.array(keep))


def _numbers(values: pa.ChunkedArray) -> tuple[pa.ChunkedArray, np.ndarray]:
    """A column as float64, and which cells are neither empty nor a finite number."""
    try:
        numbers = values.cast(pa.float64())
    except pa.ArrowInvalid:
        good = pc.match_substring_regex(values, r"^\s*[-+]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][-+]?[0-9]+)?\s*$")
        numbers = pc.if_else(good, pc.utf8_trim_whitespace(values), None).cast(pa.float64())
    finite = pc.fill_null(pc.is_finite(numbers), False)
    missing = np.asarray(values.is_null())
    good_cells = np.asarray(finite)
    if not (good_cells | missing).all():
        numbers = pc.if_else(finite, numbers, None)
    return numbers, ~good_cells & ~missing


def _unusable(values: pa.ChunkedArray) -> Iterator[tuple[np.ndarray, str, str]]:
    """The structured cells that cannot be used, [N] bool, each time with the reason and the fix."""
    cells = values.combine_chunks()
    most = STRUCTURE_VALUES.value
    yield (
        count_values(cells) > most,
        f"holds more than {most:,} values",
        f"divide these rows, or, if you trust them, set {STRUCTURE_VALUES.variable} to a larger number",
    )
    yield count_not_finite(cells) > 0, "holds a number that is not finite", "correct these cells"


def _reject(table: pa.Table, bad: np.ndarray, name: str, reason: str, rejects: Rejects, fix: str) -> None:
    rows = np.flatnonzero(bad)
    for position, index in enumerate(rows[:3]):
        count = len(rows) - 2 if position == 2 else 1
        rejects.add(
            reason,
            f"row {table[ROW][int(index)].as_py()}: {name} {shorten(table[name][int(index)].as_py(), 40)!r}",
            fix,
            count,
        )


def limited(tables: Iterator[pa.Table], limit: int | None) -> Iterator[pa.Table]:
    """The first `limit` rows; all of them when it is None."""
    left = limit
    for table in tables:
        if left is not None and table.num_rows >= left:
            yield table.slice(0, left)
            return
        if left is not None:
            left -= table.num_rows
        yield table


def all_rows(source: Source, limit: int | None) -> Iterator[pa.Table]:
    """Those of every part, as the source has them."""
    ignored = Rejects()
    for part in PARTS:
        if part in source.parts:
            yield from limited(source.parts[part](ignored), limit)
