"""Pictures in the cells of a table: the bytes of a file, or as the datasets library keeps them, {bytes, path}."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pyarrow as pa

from tunewright.data.image.resize_crop import Framing
from tunewright.data.manifest import Column, Rejects
from tunewright.data.source import image_column
from tunewright.data.sources.images import UNREADABLE, decode
from tunewright.data.structure import INTEGER, STRING, Form, arrow_type, form_of_type
from tunewright.errors import DataError
from tunewright.limits import STRUCTURE_DEPTH


def is_picture_type(kind: pa.DataType) -> bool:
    """Return whether cells of this type can hold pictures."""
    if pa.types.is_struct(kind):
        return {field.name for field in kind} == {"bytes", "path"}
    return pa.types.is_binary(kind) or pa.types.is_large_binary(kind)


def named_cells(tables: Iterable[pa.Table], column: str) -> Iterator[tuple[str, bytes | None]]:
    """Yield each cell of a column with its row, for people, and the bytes of its picture."""
    row = 0
    for table in tables:
        for cell in table[column].to_pylist():
            row += 1
            yield f"row {row}", _content(cell)


def decode_cells(
    cells: pa.ChunkedArray, column: Column, framing: Framing | None, first: int, keep: np.ndarray, rejects: Rejects
) -> pa.Array:
    """Return the cells as stored pictures.

    Args:
        first: the row number of the first cell.
        keep: [N] bool; is set to false where a picture cannot be read, which is noted in `rejects`.
    """
    pixels = np.zeros((len(cells), *(column.shape or ())), dtype=np.uint8)
    with ThreadPoolExecutor() as threads:
        decoded = threads.map(lambda cell: decode(_content(cell), column, framing), cells.to_pylist())
        for index, result in enumerate(decoded):
            if isinstance(result, str):
                keep[index] = False
                rejects.add(UNREADABLE, f"row {first + index}: {result}", "correct these rows in the source")
            else:
                pixels[index] = result
    return image_column(column.name, pixels)


# The names of class numbers: of a cell, or of the fields of its records.
Names = list[str] | dict[str, "Names"]


def names_of(feature: object, depth: int = 0) -> Names | None:
    """Return the names in a feature as the datasets library writes it in JSON, inside lists and records too; None: there are
    none."""
    if depth > 2 * STRUCTURE_DEPTH.value:  # a list and what it holds are a level each
        return None
    if isinstance(feature, list):  # a list of what its only entry says
        return names_of(feature[0], depth + 1) if len(feature) == 1 else None
    if not isinstance(feature, dict):
        return None
    kind = feature.get("_type")
    if kind == "ClassLabel":
        names = feature.get("names")
        return [str(name) for name in names] if isinstance(names, list) else None
    if isinstance(kind, str):
        return names_of(feature.get("feature"), depth + 1)
    found = {name: names_of(inner, depth + 1) for name, inner in feature.items()}
    return {name: names for name, names in found.items() if names is not None} or None


def named_form(form: Form, names: Names) -> Form:
    """Return the form of cells once their class numbers are names."""
    if isinstance(form, list):
        return [named_form(form[0], names)]
    if isinstance(form, dict) and isinstance(names, dict):
        return {name: named_form(inner, names[name]) if name in names else inner for name, inner in form.items()}
    return STRING if form == INTEGER else form


def name_labels(cells: pa.ChunkedArray, names: Names) -> pa.Array:
    """Class numbers as class names, wherever they are in a cell; a number below 0 means that there is none.

    Raises:
        DataError: a number has no name.
    """
    kind = arrow_type(named_form(form_of_type(cells.type), names))
    return pa.array([_named(cell, names) for cell in cells.to_pylist()], kind)


def _named(value: object, names: Names) -> object:
    if isinstance(value, list):
        return [_named(entry, names) for entry in value]
    if isinstance(value, dict):
        return {name: _named(entry, names[name]) if name in names else entry for name, entry in value.items()}
    if value is None or (isinstance(value, int) and value < 0):
        return None
    if isinstance(value, int) and isinstance(names, list) and value < len(names):
        return names[value]
    raise DataError(
        "a class has no name",
        found=value,
        expected=f"a number from 0 to {len(names) - 1}: the data names {len(names):,} classes",
        fix="correct the numbers, or name all classes where the data was written",
    )


def _content(cell: Any) -> bytes | None:
    """Return the bytes of a picture. A path alone is not followed: a table must not name files of this machine."""
    return cell["bytes"] if isinstance(cell, dict) else cell
