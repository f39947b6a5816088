"""Lists and records in cells of text, as CSV files hold them: JSON, read where most cells of a column are such."""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import pyarrow as pa

from tunewright.data.column_types import NUMBER_SHARE
from tunewright.data.manifest import Column, Rejects
from tunewright.data.prepare.row_filter import all_rows
from tunewright.data.source import ROW, Batches, Source
from tunewright.data.structure import CommonForm, Form, arrow_type, fit, form_of, is_structured
from tunewright.errors import shorten


def read_json_cells(source: Source, limit: int | None) -> Source:
    """Return the source with lists and records in place of texts, in columns where nearly all cells are such JSON.

    A cell that is not, or has another structure than most, is skipped with its row and noted.

    Args:
        limit: only the first so many rows of each part are looked at; None: all.
    """
    forms = _forms(source, limit)
    if not forms:
        return source
    found = {name: Column(name=name, kind="structure", form=form) for name, form in forms.items()}
    parts = {name: partial(_parsed, batches, forms) for name, batches in source.parts.items()}
    return replace(source, parts=parts, known={**source.known, **found})


def _forms(source: Source, limit: int | None) -> dict[str, Form]:
    """The columns of JSON, each with the form of most of its cells."""
    present: Counter[str] = Counter()
    structured: Counter[str] = Counter()
    common: defaultdict[str, CommonForm] = defaultdict(CommonForm)
    for table in all_rows(source, limit):
        for name in table.column_names:
            if name in source.known or not pa.types.is_string(table[name].type):
                continue
            for cell in table[name].drop_null().to_pylist():
                present[name] += 1
                if cell.lstrip()[:1] in ("[", "{"):
                    try:
                        form = form_of(_value(cell))
                    except ValueError:
                        continue
                    structured[name] += 1
                    common[name].add(form)
    return {name: common[name].form for name in structured if structured[name] >= NUMBER_SHARE * present[name]}


def _value(cell: str) -> Any:
    """The list or record that a cell holds. Raises ValueError where it is none."""
    try:
        value = json.loads(cell)
        if "\\ud" in cell.lower():  # half of a character that has two is no text
            json.dumps(value, ensure_ascii=False).encode()
    except RecursionError:
        raise ValueError("nested too deeply") from None
    if not is_structured(value):
        raise ValueError(f"{shorten(cell, 30)!r} is neither a list nor a record")
    return value


def _parsed(batches: Batches, forms: Mapping[str, Form], rejects: Rejects) -> Iterator[pa.Table]:
    for table in batches(rejects):
        keep = np.ones(table.num_rows, bool)
        for name, form in forms.items():
            cells: list[Any] = []
            for index, cell in enumerate(table[name].to_pylist()):
                try:
                    cells.append(None if cell is None else fit(_value(cell), form))
                except ValueError as error:
                    cells.append(None)
                    if keep[index]:
                        _note(table[ROW][index].as_py(), name, cell or "", error, rejects)
                    keep[index] = False
            place = table.column_names.index(name)
            table = table.set_column(place, name, pa.array(cells, arrow_type(form)))
        yield table if keep.all() else table.filter(pa.array(keep))


def _note(row: int, name: str, cell: str, error: ValueError, rejects: Rejects) -> None:
    rejects.add(
        f"{name} is not JSON of the structure that most cells have",
        f"row {row}: {name} {shorten(cell, 40)!r}: {shorten(error, 80)}",
        f"correct {name!r} in these rows, or remove them",
    )
