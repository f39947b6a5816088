"""What the columns of Parquet and Arrow files become: pictures, arrays, lists and records, names of classes, text and numbers."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from tunewright.data.image.resize_crop import Framing
from tunewright.data.manifest import Column, Rejects
from tunewright.data.source import BATCH_ROWS, ROW, with_rows
from tunewright.data.sources.cells import Names, decode_cells, is_picture_type, name_labels, named_form, names_of
from tunewright.data.sources.images import picture_column, pictures_at_once
from tunewright.data.structure import STRING, Form, arrow_type, form_of_type
from tunewright.errors import DataError
from tunewright.limits import DECODE_BYTES

# Cells of a column, each with a name for people.
NamedCells = Callable[[str], Iterable[tuple[str, bytes | None]]]


@dataclass(frozen=True)
class ArrowColumns:
    """How tables of one schema are read."""

    known: Mapping[str, Column]
    names: Mapping[str, Names]
    """The names of class numbers, by column."""
    framing: Framing | None

    @property
    def target(self) -> str | None:
        """The only column with one named class a row; None where there are none or several."""
        single = [name for name in self.names if name not in self.known]
        return single[0] if len(single) == 1 else None

    @property
    def rows_at_once(self) -> int:
        """How many rows are read before they are written."""
        pictures = self._pictures()
        return pictures_at_once(pictures) if pictures else BATCH_ROWS

    def _pictures(self) -> list[Column]:
        return [column for column in self.known.values() if column.kind == "image"]

    def read(self, table: pa.Table, first: int, rejects: Rejects) -> pa.Table:
        """Return the rows as a source gives them.

        Args:
            first: the number of the first row; rows with a picture that cannot be read are skipped and noted.

        Raises:
            DataError: a class number has no name, or a column takes too much memory.
        """
        keep = np.ones(table.num_rows, dtype=bool)
        columns: dict[str, pa.Array | pa.ChunkedArray] = {}
        for name in table.column_names:
            cells, column = table[name], self.known.get(name)
            if name == ROW:
                continue
            if column is not None and column.kind == "image":
                columns[name] = decode_cells(cells, column, self.framing, first, keep, rejects)
            elif name in self.names:
                columns[name] = name_labels(cells, self.names[name])
            else:
                columns[name] = _plain(cells, column, name)
        numbered = with_rows(pa.table(columns), first)
        return numbered if keep.all() else numbered.filter(pa.array(keep))


def arrow_columns(
    schema: pa.Schema, features: Mapping[str, object], framing: Framing | None, cells: NamedCells, place: Path | str
) -> ArrowColumns:
    """Decide what each column is.

    Args:
        features: the columns as the datasets library describes them in JSON; empty where it does not.
        framing: gives all pictures one size; None: they have one.
        cells: reads the pictures of a column, for their sizes.
        place: the file or data set, for errors.

    Raises:
        DataError: a column cannot be used.
    """
    names = {name: found for name in schema.names if (found := names_of(features.get(name))) is not None}
    known: dict[str, Column] = {}
    for field in schema:
        kind = field.type
        if is_picture_type(kind):
            known[field.name] = picture_column(field.name, cells(field.name), framing, place)
        elif pa.types.is_fixed_size_list(kind) and _is_number(kind.value_type) and field.name not in names:
            known[field.name] = Column(name=field.name, kind="array", shape=(kind.list_size,))
        elif pa.types.is_nested(kind) and not is_turns_type(kind):
            form = _form(field.name, kind, place)
            form = named_form(form, names[field.name]) if field.name in names else form
            known[field.name] = Column(name=field.name, kind="structure", form=form)
    return ArrowColumns(known=known, names=names, framing=framing)


def _is_number(kind: pa.DataType) -> bool:
    return pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_boolean(kind)


def _form(name: str, kind: pa.DataType, place: Path | str) -> Form:
    try:
        return form_of_type(kind)
    except ValueError as error:
        raise DataError(
            f"the column {name!r} cannot be used: {error}",
            file=place,
            found=str(kind),
            expected="numbers, text, true/false, times, pictures, turns of a conversation, or lists and records of these",
            fix=f"flatten {name!r}, or remove it from the file",
        ) from None


def is_turns_type(kind: pa.DataType) -> bool:
    """Return whether cells are lists of who says what: they become JSON text, as in the other sources."""
    if (not pa.types.is_list(kind) and not pa.types.is_large_list(kind)) or not pa.types.is_struct(kind.value_type):
        return False
    names = {field.name for field in kind.value_type}
    return {"role", "content"} <= names or {"from", "value"} <= names


def _plain(cells: pa.ChunkedArray, column: Column | None, name: str) -> pa.ChunkedArray:
    """Cells as text, as arrays of float32, or with their structure."""
    kind = cells.type
    if column is not None and column.kind == "array":
        return cells.cast(pa.list_(pa.float32(), kind.list_size))
    if column is not None:
        return cells.cast(arrow_type(column.form))
    if is_turns_type(kind):
        turns = [None if entry is None else json.dumps(entry, ensure_ascii=False) for entry in cells.to_pylist()]
        return pa.chunked_array([pa.array(turns, pa.string())])
    return _written_out(cells, name) if pa.types.is_dictionary(kind) else cells.cast(arrow_type(STRING))


def _written_out(column: pa.ChunkedArray, name: str) -> pa.ChunkedArray:
    """Return a dictionary-encoded column as text.

    Raises:
        DataError: its values are so long and used so often that the text would take too much memory.
    """
    lengths = [pc.binary_length(pc.cast(chunk.dictionary, pa.string())).take(chunk.indices) for chunk in column.chunks]
    size = sum(pc.sum(found).as_py() or 0 for found in lengths)
    DECODE_BYTES.require(size, "some rows of the file take too much memory", place=f"column {name!r}")
    return pc.cast(column, pa.string())
