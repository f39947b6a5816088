"""The form of structured cells: lists and records, such as the tags of a sentence or the boxes of an image.

A form is written in JSON: "string", "integer", "number" or "boolean" for a plain value, [FORM] for a list, {NAME: FORM, …} for a
record, and null where no value has been seen. `[{"bbox": ["number"], "label": "string"}]` is a list of labelled boxes.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import cast

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from tunewright.errors import shorten
from tunewright.limits import STRUCTURE_DEPTH, STRUCTURE_FIELDS

Form = str | list["Form"] | dict[str, "Form"] | None

STRING, INTEGER, NUMBER, BOOLEAN = "string", "integer", "number", "boolean"
PLAIN: dict[str, pa.DataType] = {
    STRING: pa.string(),
    INTEGER: pa.int64(),
    NUMBER: pa.float64(),
    BOOLEAN: pa.bool_(),
}
NOUNS = {STRING: "text", INTEGER: "an integer", NUMBER: "a number", BOOLEAN: "true or false"}
# Forms of one column that are counted side by side, at most: further ones cannot become the commonest.
MOST_FORMS = 8


def is_structured(value: object) -> bool:
    """Return whether a value of JSON is a list or a record."""
    return isinstance(value, list | dict)


def is_list_of_names(form: Form) -> bool:
    """Return whether cells of this form can be the labels of a row: lists of texts, integers or booleans."""
    return isinstance(form, list) and (form[0] is None or form[0] in (STRING, INTEGER, BOOLEAN))


def form_of(value: object, depth: int = 0) -> Form:
    """Return the form of a value of JSON.

    Raises:
        ValueError: it is nested too deeply, a record has too many fields, a list holds values of different forms, or an
            integer has more than 64 bits.
    """
    if not isinstance(value, list | dict):
        return _plain_form(value)
    if depth >= (most := STRUCTURE_DEPTH.value):
        raise ValueError(f"it is nested deeper than {most} levels")
    if isinstance(value, dict):
        record = cast("dict[str, object]", value)
        _require_few_fields(len(record))
        # An empty record says nothing of its fields, and cannot be stored.
        return {name: form_of(entry, depth + 1) for name, entry in record.items()} or None
    inner: Form = None
    for entry in cast("list[object]", value):
        inner = _merged_items(inner, form_of(entry, depth + 1), plain=depth == 0)
    return [inner]


def _plain_form(value: object) -> Form:
    if value is None:
        return None
    if isinstance(value, bool):
        return BOOLEAN
    if isinstance(value, int):
        if not -(2**63) <= value < 2**63:
            raise ValueError(f"it holds {shorten(value, 30)}, which has more than 64 bits")
        return INTEGER
    return NUMBER if isinstance(value, float) else STRING


def merged(one: Form, other: Form, *, top: bool = True) -> Form:
    """Return the form of cells that have either form: integers and numbers are numbers, a record may lack fields.

    Args:
        top: the forms are of whole cells: lists of plain values of several kinds are then lists of texts.

    Raises:
        ValueError: no form holds both, or it would have too many fields.
    """
    if one == other or other is None:
        return one
    if one is None:
        return other
    if isinstance(one, list) and isinstance(other, list):
        return [_merged_items(one[0], other[0], plain=top)]
    if isinstance(one, dict) and isinstance(other, dict):
        both = {name: merged(one.get(name), other.get(name), top=False) for name in {**one, **other}}
        _require_few_fields(len(both))
        return both
    if {str(one), str(other)} == {INTEGER, NUMBER}:
        return NUMBER
    raise ValueError(f"it holds both {describe(one)} and {describe(other)}")


def _merged_items(one: Form, other: Form, *, plain: bool) -> Form:
    try:
        return merged(one, other, top=False)
    except ValueError:
        if plain and isinstance(one, str) and isinstance(other, str):
            return STRING
        raise


def _require_few_fields(count: int) -> None:
    if count > (most := STRUCTURE_FIELDS.value):
        raise ValueError(f"it has more than {most:,} different fields")


def describe(form: Form) -> str:
    """Return the form in words."""
    if isinstance(form, list):
        return "a list"
    return "a record" if isinstance(form, dict) else NOUNS.get(form or "", "nothing")


class CommonForm:
    """Finds the form that most of a column's cells have."""

    def __init__(self) -> None:
        self._forms: list[Form] = []
        self._counts: list[int] = []

    def add(self, form: Form) -> None:
        """Count a cell, with the first of the forms that it fits together with."""
        for place, known in enumerate(self._forms):
            try:
                self._forms[place] = merged(known, form)
            except ValueError:
                continue
            self._counts[place] += 1
            return
        if len(self._forms) < MOST_FORMS:
            self._forms.append(form)
            self._counts.append(1)

    @property
    def form(self) -> Form:
        """The commonest form; the first of several."""
        return self._forms[int(np.argmax(self._counts))] if self._forms else None


def fit(value: object, form: Form, place: str = "") -> object:
    """Return a value of JSON as its column stores it: numbers as float, absent fields as None.

    Args:
        place: where the value stands in its cell, such as "[2].bbox".

    Raises:
        ValueError: the value has another form; the message says where.
    """
    if value is None or value == {}:
        return None
    if isinstance(form, list) and isinstance(value, list):
        if not place and form == [STRING]:
            return [_text(entry, f"[{index}]") for index, entry in enumerate(cast("list[object]", value))]
        return [fit(entry, form[0], f"{place}[{index}]") for index, entry in enumerate(cast("list[object]", value))]
    if isinstance(form, dict) and isinstance(value, dict):
        record = cast("dict[str, object]", value)
        if unknown := record.keys() - form.keys():
            raise ValueError(f"{place.lstrip('.') or 'the record'} has a field {min(unknown)!r}, which others lack")
        return {name: fit(record.get(name), inner, f"{place}.{name}") for name, inner in form.items()}
    found = None if is_structured(value) else _plain_form(value)
    if found == INTEGER and form == NUMBER:
        return float(cast("int", value))
    if found is None or found != form:
        raise ValueError(f"{place.lstrip('.') or 'the cell'} holds {shorten(value, 30)!r} instead of {describe(form)}")
    return value


def _text(value: object, place: str) -> str | None:
    """Return an entry of a list of texts; other plain values as JSON writes them."""
    if is_structured(value):
        raise ValueError(f"{place} holds {shorten(value, 30)!r} instead of text")
    if isinstance(value, bool):
        return "true" if value else "false"
    return value if value is None or isinstance(value, str) else repr(value)


def arrow_type(form: Form) -> pa.DataType:
    """Return the Arrow type that holds cells of a form; where nothing was seen, texts."""
    if isinstance(form, list):
        return pa.list_(arrow_type(form[0]))
    if isinstance(form, dict):
        return pa.struct([(name, arrow_type(inner)) for name, inner in form.items()])
    return PLAIN[form or STRING]


def form_of_type(kind: pa.DataType, depth: int = 0) -> Form:
    """Return the form of Arrow's cells; times become texts.

    Raises:
        ValueError: there is no form for them, such as bytes and mappings, or they are nested too deeply.
    """
    types = pa.types
    if depth > (most := STRUCTURE_DEPTH.value):
        raise ValueError(f"it is nested deeper than {most} levels")
    if types.is_list(kind) or types.is_large_list(kind) or types.is_fixed_size_list(kind):
        return [form_of_type(kind.value_type, depth + 1)]
    if types.is_struct(kind) and kind.num_fields:
        _require_few_fields(kind.num_fields)
        return {field.name: form_of_type(field.type, depth + 1) for field in kind}
    if types.is_boolean(kind):
        return BOOLEAN
    if types.is_integer(kind) and not types.is_uint64(kind):
        return INTEGER
    if types.is_integer(kind) or types.is_floating(kind) or types.is_decimal(kind):
        return NUMBER
    if types.is_string(kind) or types.is_large_string(kind) or types.is_temporal(kind):
        return STRING
    if types.is_null(kind):
        return None
    raise ValueError(f"{kind} has no form")


def count_values(cells: pa.Array) -> np.ndarray:
    """Return how many values each cell holds, those of lists within lists included: [N] int64."""
    if pa.types.is_list(cells.type):
        parents = np.asarray(pc.list_parent_indices(cells))
        inner = np.maximum(1, count_values(cells.flatten()))
        return np.bincount(parents, inner, len(cells)).astype(np.int64)
    if pa.types.is_struct(cells.type):
        return _sum(len(cells), (count_values(field) for field in cells.flatten()))
    return np.ones(len(cells), np.int64)


def count_not_finite(cells: pa.Array) -> np.ndarray:
    """Return how many infinite or undefined numbers each cell holds: [N] int64."""
    if pa.types.is_list(cells.type):
        parents = np.asarray(pc.list_parent_indices(cells))
        return np.bincount(parents, count_not_finite(cells.flatten()), len(cells)).astype(np.int64)
    if pa.types.is_struct(cells.type):
        return _sum(len(cells), (count_not_finite(field) for field in cells.flatten()))
    if pa.types.is_floating(cells.type):
        return np.asarray(pc.invert(pc.fill_null(pc.is_finite(cells), True))).astype(np.int64)
    return np.zeros(len(cells), np.int64)


def _sum(length: int, counts: Iterable[np.ndarray]) -> np.ndarray:
    return sum(counts, np.zeros(length, np.int64))
