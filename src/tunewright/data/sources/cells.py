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
from tunewright.errors import DataError


def is_picture_type(kind: pa.DataType) -> bool:
    """Whether cells of this type can hold pictures."""
    if pa.types.is_struct(kind):
        return {field.name for field in kind} == {"bytes", "path"}
    return pa.types.is_binary(kind) or pa.types.is_large_binary(kind)


def named_cells(tables: Iterable[pa.Table], column: str) -> Iterator[tuple[str, bytes | None]]:
    """Each cell of a column with its row, for people, and the bytes of its picture."""
    row = 0
    for table in tables:
        for cell in table[column].to_pylist():
            row += 1
            yield f"row {row}", _content(cell)


def decode_cells(
    cells: pa.ChunkedArray, column: Column, framing: Framing | None, first: int, keep: np.ndarray, rejects: Rejects
) -> pa.Array:
    """The cells as stored pictures.

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


def name_labels(cells: pa.ChunkedArray, names: list[str]) -> pa.Array:
    """Class numbers as class names; a number below 0 means that there is none.

    Raises:
        DataError: a number has no name.
    """
    return pa.array([_named(index, names) for index in cells.to_pylist()], pa.string())


def name_label_lists(cells: pa.ChunkedArray, names: list[str]) -> pa.Array:
    """Lists of class numbers as lists of class names.

    Raises:
        DataError: a number has no name.
    """
    named = [None if cell is None else [_named(index, names) for index in cell] for cell in cells.to_pylist()]
    return pa.array(named, pa.list_(pa.string()))


def _named(index: Any, names: list[str]) -> str | None:
    try:
        return None if index is None or index < 0 else names[index]
    except (IndexError, TypeError):
        raise DataError(
            "a class has no name",
            found=index,
            expected=f"a number from 0 to {len(names) - 1}: the data names {len(names):,} classes",
            fix="correct the numbers, or name all classes where the data was written",
        ) from None


def _content(cell: Any) -> bytes | None:
    """The bytes of a picture. A path alone is not followed: a table must not name files of this machine."""
    return cell["bytes"] if isinstance(cell, dict) else cell
