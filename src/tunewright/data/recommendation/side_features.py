"""What is known of users and items, in tables of their own, joined to their interactions."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial

import pyarrow as pa
import pyarrow.compute as pc

from tunewright.data.manifest import Rejects
from tunewright.data.recommendation.column_roles import role_columns
from tunewright.data.source import ROW, Batches, Source
from tunewright.errors import DataError
from tunewright.recipe.schema import Data


def column_names(source: Source) -> list[str]:
    """Return the columns of a source's first rows."""
    for part in source.parts.values():
        for table in part(Rejects()):
            return [name for name in table.column_names if name != ROW]
    return []


def join_sides(source: Source, data: Data, opened: Callable[[str], Source]) -> Source:
    """Return the source with the columns of `data.users` and `data.items`; an interaction whose user or item has no row there has
    empty cells.

    Args:
        opened: reads a file of the recipe.

    Raises:
        DataError: no column joins them, or one joins several rows.
    """
    names = column_names(source)
    user, item = role_columns(data, names)
    for role, file, key in (("user", data.users, user), ("item", data.items, item)):
        if file is None:
            continue
        side = opened(file)
        about = pa.concat_tables([table for part in side.parts.values() for table in part(Rejects())])
        about = about.drop_columns([ROW])
        if key is None or key not in about.column_names:
            raise DataError(
                f"no column joins the {role}s to their interactions",
                file=file,
                found=", ".join(about.column_names),
                expected=key or f"a column that says which {role}",
                fix=f"name the column alike in both, or say data.{role}",
            )
        keys = about[key].cast(pa.string()).combine_chunks()
        if len(pc.unique(keys)) < len(keys):
            twice = pc.value_counts(keys).to_pylist()
            raise DataError(
                f"a {role} has several rows",
                file=file,
                found=next(entry["values"] for entry in twice if entry["counts"] > 1),
                expected=f"one row for each {key}",
                fix="keep one of them",
            )
        parts = {name: partial(_joined, batches, key, keys, about) for name, batches in source.parts.items()}
        known = {name: column for name, column in side.known.items() if name not in names}
        source = replace(source, parts=parts, files=[*source.files, *side.files], known={**source.known, **known})
        names = [*names, *about.column_names]
    return source


def _joined(batches: Batches, key: str, keys: pa.Array, about: pa.Table, rejects: Rejects) -> Iterator[pa.Table]:
    for table in batches(rejects):
        place = pc.index_in(table[key].cast(pa.string()), value_set=keys)
        for name in about.column_names:
            if name not in table.column_names:
                table = table.append_column(name, about[name].take(place))
        yield table
