"""What divides the rows of each part of a source among the splits."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from tunewright.data.manifest import Rejects
from tunewright.data.prepare import splits
from tunewright.data.prepare.layout import BY_EACH, Layout
from tunewright.data.prepare.row_filter import limited, usable_rows
from tunewright.data.source import ROW
from tunewright.recipe.schema import Split


def assigners(layout: Layout, seed: int) -> dict[str, splits.Assign]:
    """For each part of the source, what divides its rows; they count the rows that they have seen."""
    official, split = set(layout.source.parts), layout.data.split
    test = 0.0 if "test" in official else split.test
    valid = 0.0 if "valid" in official else split.valid
    shares = split.model_copy(update={"valid": valid, "test": test})
    if split.by == "group":
        drawn: splits.Assign = splits.ByGroup(seed, valid, test, split.column or "")
    elif split.by == "time":
        times = [splits.time_values(table[split.column or ""]) for table in _rows_to_divide(layout)]
        drawn = splits.by_time(shares, np.concatenate(times))
    elif split.by in BY_EACH:
        drawn = _within(layout, seed, shares)
    else:
        drawn = splits.Strata(seed, valid, test, layout.target.column if split.by == "stratified" else None)
    return {
        "train": drawn,
        "all": drawn,
        "valid": lambda table: np.full(table.num_rows, splits.VALID, dtype=np.int8),
        "test": lambda table: np.full(table.num_rows, splits.TEST, dtype=np.int8),
    }


def _rows_to_divide(layout: Layout) -> Iterator[pa.Table]:
    """The usable rows that belong to no split of the source's own."""
    parts, limit = layout.source.parts, layout.data.limit
    for part in ("train", "all"):
        for table in limited(parts[part](Rejects()), limit) if part in parts else ():
            yield usable_rows(table, layout.columns, layout.used, layout.target.column, Rejects())


def _within(layout: Layout, seed: int, split: Split) -> splits.Within:
    groups: list[pa.Array] = []
    rows: list[np.ndarray] = []
    times: list[np.ndarray] = []
    for table in _rows_to_divide(layout):
        groups += table[split.column or ""].cast(pa.string()).fill_null("").chunks
        rows.append(np.asarray(table[ROW]))
        if split.order is not None:
            times.append(splits.time_values(table[split.order]))
    order = np.concatenate(times) if times else None
    numbers = pc.dictionary_encode(pa.chunked_array(groups, pa.string()).combine_chunks()).indices.to_numpy()
    return splits.within(split, seed, numbers, np.concatenate(rows), order)
