"""The k-core of interactions: who chose at least k items that are kept, and what was chosen by at least k users that are kept."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from functools import partial

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from tunewright.data.manifest import Rejects
from tunewright.data.recommendation.column_roles import role_columns
from tunewright.data.recommendation.side_features import column_names
from tunewright.data.source import ROW, Batches, Source
from tunewright.errors import DataError
from tunewright.recipe.schema import Data


def keep_core(source: Source, data: Data, least: int) -> Source:
    """Return the source without users and items that have fewer than `least` interactions, over and over until none has; rows are
    counted as skipped. What a source calls its test is filtered alike.

    Raises:
        DataError: it is not seen who and what there is, or nothing is left.
    """
    user, item = role_columns(data, column_names(source))
    if user is None or item is None:
        raise DataError(
            "data.core counts users and items, and it is not seen which columns say them",
            file=data.source,
            place="data.core",
            expected="columns named user and item, or the like",
            fix="data.user and data.item: NAMES OF THE COLUMNS",
        )
    tables = [table.select([user, item]) for part in source.parts.values() for table in part(Rejects())]
    numbers: list[np.ndarray] = []
    values: list[pa.Array] = []
    for name in (user, item):
        cells = pa.chunked_array([chunk for table in tables for chunk in table[name].cast(pa.string()).chunks])
        encoded = pc.dictionary_encode(cells, null_encoding="encode").combine_chunks()
        numbers.append(encoded.indices.to_numpy())
        values.append(encoded.dictionary)
    kept = np.ones(len(numbers[0]), bool)
    while True:
        rare = np.zeros(len(kept), bool)
        for places, names in zip(numbers, values, strict=True):
            rare |= np.bincount(places[kept], minlength=len(names))[places] < least
        if not (rare & kept).any():
            break
        kept &= ~rare
    if not kept.any():
        raise DataError(
            f"no user and no item has {least} interactions with those that have as many",
            file=data.source,
            place="data.core",
            found=least,
            fix="a smaller number",
        )
    rest = [names.take(pa.array(np.unique(places[kept]))) for places, names in zip(numbers, values, strict=True)]
    chosen = dict(zip((user, item), rest, strict=True))
    return replace(source, parts={name: partial(_filtered, part, chosen, least) for name, part in source.parts.items()})


def _filtered(batches: Batches, chosen: dict[str, pa.Array], least: int, rejects: Rejects) -> Iterator[pa.Table]:
    for table in batches(rejects):
        keep = np.ones(table.num_rows, bool)
        for name, values in chosen.items():
            keep &= np.asarray(pc.is_in(table[name].cast(pa.string()), value_set=values, skip_nulls=False))
        rows = np.flatnonzero(~keep)
        for position, index in enumerate(rows[:3]):
            cells = ", ".join(f"{name} {table[name][int(index)].as_py()}" for name in chosen)
            count = len(rows) - 2 if position == 2 else 1
            number = table[ROW][int(index)].as_py()
            rejects.add(
                f"the user or the item has fewer than {least} interactions",
                f"row {number}: {cells}",
                "a smaller data.core",
                count,
            )
        yield table.filter(pa.array(keep))
