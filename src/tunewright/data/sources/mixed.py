"""Several sources of texts as one: a column of texts, and one that says where each is from."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial

import pyarrow as pa
import pyarrow.compute as pc

from tunewright.data.manifest import Column, Rejects
from tunewright.data.source import ROW, Source
from tunewright.errors import DataError

# The column with the names of the sources.
SOURCE = "source"


@dataclass(frozen=True, kw_only=True)
class Named:
    """A source, as the recipe calls it."""

    name: str
    source: Source
    column: str
    """The one with the texts."""
    limit: int | None
    """The first so many rows alone."""


def mix_sources(parts: Sequence[Named]) -> Source:
    """Return the rows of each, one source behind the other; those of a later one are numbered on from those before.

    Raises:
        DataError: some of them are divided by their makers and others are not, or two have one name.
    """
    first = parts[0]
    for part in parts[1:]:
        if set(part.source.parts) != set(first.source.parts):
            raise DataError(
                "the sources of the mix are divided in different ways by those who made them",
                place="data.mix",
                found="; ".join(f"{one.name}: {', '.join(sorted(one.source.parts))}" for one in (first, part)),
                expected="all of them with test rows of their own, or none",
                fix="remove one, or keep its texts in a file of your own",
            )
    if len({part.name for part in parts}) < len(parts):
        raise DataError(
            "a source occurs twice in the mix",
            place="data.mix",
            found=", ".join(part.name for part in parts),
            fix="give it once, with another weight",
        )
    known = {
        first.column: Column(name=first.column, kind="text"),
        SOURCE: Column(name=SOURCE, kind="category"),
    }
    contents = [part.source.content for part in parts]
    return Source(
        format="mix",
        parts={name: partial(_rows, parts, name) for name in first.source.parts},
        files=[file for part in parts for file in part.source.files],
        known=known,
        licence="; ".join(dict.fromkeys(part.source.licence for part in parts if part.source.licence)) or None,
        citation="; ".join(dict.fromkeys(part.source.citation for part in parts if part.source.citation)) or None,
        content=hashlib.sha256(repr(contents).encode()).hexdigest() if any(contents) else None,
    )


def _rows(parts: Sequence[Named], name: str, rejects: Rejects) -> Iterator[pa.Table]:
    before = 0
    for part in parts:
        last, left = 0, part.limit
        for table in part.source.parts[name](rejects):
            if part.column not in table.column_names:
                raise DataError(
                    f"the data has no column {part.column!r}",
                    file=part.name,
                    place="data.mix",
                    found=", ".join(column for column in table.column_names if column != ROW),
                    expected="the column with the texts",
                    fix="name it with `input`",
                )
            chosen = table if left is None else table.slice(0, left)
            left = None if left is None else left - chosen.num_rows
            if chosen.num_rows:
                last = pc.max(chosen[ROW]).as_py()
                names = pa.array([part.name] * chosen.num_rows, pa.string())
                texts = chosen[part.column].cast(pa.string())
                yield pa.table({parts[0].column: texts, SOURCE: names, ROW: pc.add(chosen[ROW], before)})
            if left == 0:
                break
        before += last
