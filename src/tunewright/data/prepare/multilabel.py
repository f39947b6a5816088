"""A target with several classes in each row: a list in each cell, text divided by a sign, or a column of 0 and 1 for each.

All three are stored as lists of texts. A row may have no class at all: an empty list, only zeros, or an empty text. A cell
that is missing where others hold lists or zeros and ones is no answer, and its row is skipped.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from tunewright.data.column_types import missing_column
from tunewright.data.manifest import Column, Rejects
from tunewright.data.source import ROW, Batches, Source
from tunewright.errors import DataError, shorten
from tunewright.limits import LABEL_CELLS
from tunewright.recipe.schema import Data

LABELS = pa.list_(pa.string())
# Tried in this order; a comma last, since names have commas inside them.
SEPARATORS = ("|", ";", ",")
# A separator must occur in at least this share of the cells that are not empty.
SHARE = 0.02
JOINED = "labels"
ON, OFF = ("1", "1.0", "true", "yes"), ("0", "0.0", "false", "no")


@dataclass(frozen=True)
class Separator:
    """What divides the cells of a column, and how that is known."""

    sign: str
    reason: str


def find_separator(data: Data, name: str, tables: Iterable[pa.Table], file: str) -> Separator:
    """The sign that divides the cells of a column: the recipe's, or the one that occurs in them.

    Raises:
        DataError: the recipe names none, and none occurs in the cells.
    """
    wanted = data.separator
    counts = dict.fromkeys([wanted] if wanted is not None else SEPARATORS, 0)
    filled, example = 0, None
    for table in tables:
        cells = table[name].cast(pa.string()).drop_null()
        filled += len(cells)
        example = example or (cells[0].as_py() if len(cells) else None)
        for sign in counts:
            counts[sign] += pc.sum(pc.match_substring(cells, sign)).as_py() or 0
    if wanted is not None:
        return Separator(wanted, f"cells are divided at {wanted!r}, which {counts[wanted]:,} of {filled:,} hold")
    found = next((sign for sign, count in counts.items() if count and count >= SHARE * filled), None)
    if found is None:
        raise DataError(
            f"no cell of the target {name!r} holds several classes",
            file=file,
            place=f"column {name!r}",
            found=example,
            expected=f"lists, or classes divided by one of {' '.join(SEPARATORS)}",
            fix="name the sign with data.separator; for one class a row take task: text-classification",
        )
    return Separator(found, f"cells are divided at {found!r}, which {counts[found]:,} of {filled:,} hold")


def split_cells(values: pa.ChunkedArray, sign: str) -> pa.ChunkedArray:
    """Text cells as lists; an empty cell is an empty list."""
    return as_lists(pc.split_pattern(pc.fill_null(values.cast(pa.string()), ""), sign))


def as_lists(values: pa.ChunkedArray) -> pa.ChunkedArray:
    """Lists of anything plain as lists of trimmed texts, each once, in their order; nulls stay."""
    cells = [
        None if cell is None else list(dict.fromkeys(name for entry in cell if entry is not None and (name := _name(entry))))
        for cell in values.to_pylist()
    ]  # fmt: skip
    return pa.chunked_array([pa.array(cells, LABELS)])


def _name(entry: object) -> str:
    return ("true" if entry else "false") if isinstance(entry, bool) else str(entry).strip()


def join_flags(source: Source, file: str, flags: list[str]) -> Source:
    """The source with one column `labels` in place of columns of 0 and 1, `flags`.

    Raises:
        DataError: a column is missing, or there is one named `labels` already.
    """
    part = next(iter(source.parts.values()))
    names = [name for name in next(iter(part(Rejects())), pa.table({})).column_names if name != ROW]
    for name in flags:
        if name not in names:
            raise missing_column("data.target", name, names, file)
    if JOINED in names and JOINED not in flags:
        raise DataError(
            f"the columns of data.target become one, which is named {JOINED!r}, and there is such a column",
            file=file,
            found=", ".join(names),
            fix=f"rename the column {JOINED!r}, or name it alone as data.target",
        )
    known = {name: column for name, column in source.known.items() if name not in flags}
    return replace(
        source,
        parts={name: partial(_with_flags_joined, batches, flags) for name, batches in source.parts.items()},
        known={**known, JOINED: Column(name=JOINED, kind="labels")},
        target=JOINED,
    )


def _with_flags_joined(batches: Batches, flags: list[str], rejects: Rejects) -> Iterator[pa.Table]:
    for table in batches(rejects):
        keep = np.ones(table.num_rows, dtype=bool)
        on: list[np.ndarray] = []
        for name in flags:
            cells = pc.utf8_lower(pc.utf8_trim_whitespace(table[name].cast(pa.string())))
            is_on, is_off = (np.asarray(pc.fill_null(pc.is_in(cells, pa.array(known)), False)) for known in (ON, OFF))
            on.append(is_on)
            _reject_rows(table, name, keep & ~is_on & ~is_off, rejects)
            keep &= is_on | is_off
        chosen = np.stack(on, axis=1)
        lists = pa.array([[flags[k] for k in np.flatnonzero(row)] for row in chosen], LABELS)
        joined = table.drop_columns(flags).append_column(JOINED, lists)
        yield joined if keep.all() else joined.filter(pa.array(keep))


def _reject_rows(table: pa.Table, name: str, bad: np.ndarray, rejects: Rejects) -> None:
    rows = np.flatnonzero(bad)
    for position, index in enumerate(rows[:3]):
        cell = table[name][int(index)].as_py()
        rejects.add(
            f"the target {name!r} is neither 0 nor 1",
            f"row {table[ROW][int(index)].as_py()}: {'empty' if cell is None else repr(shorten(cell, 40))}",
            f"correct {name!r} in these rows, or remove them",
            len(rows) - 2 if position == 2 else 1,
        )


def label_matrix(values: pa.ChunkedArray, classes: list[str]) -> np.ndarray:
    """[N, K] uint8: 1 where a row has a class. A class that is not among `classes` gets no column."""
    lists = values.combine_chunks()
    lists = pa.concat_arrays(lists.chunks) if isinstance(lists, pa.ChunkedArray) else lists
    LABEL_CELLS.require(len(lists) * len(classes), "rows times classes are too many to be kept in memory")
    matrix = np.zeros((len(lists), len(classes)), np.uint8)
    rows = np.asarray(pc.list_parent_indices(lists))
    columns = pc.fill_null(pc.index_in(pc.list_flatten(lists), pa.array(classes, pa.string())), -1).to_numpy(
        zero_copy_only=False
    )
    matrix[rows[columns >= 0], columns[columns >= 0]] = 1
    return matrix
