"""Write dataclasses as JSON, and read them back with their types and bounds checked.

A record is a dataclass of plain values: text, numbers, truth values, lists, dicts by text, and other records. The JSON may
come from somebody else or from an older version: whatever does not fit its field is an `ArtifactError`.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, dataclass, field
from functools import cache
from pathlib import Path
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from tunewright.errors import ArtifactError

T = TypeVar("T")

# No measurement is larger; without such numbers nothing on a page can overflow.
LARGEST = 1e100


@dataclass(frozen=True)
class Within:
    """The bounds of a number, both included."""

    low: float = -LARGEST
    high: float = LARGEST


Count = Annotated[int, Within(0)]
Amount = Annotated[float, Within(0)]
# A mean of shares may be above 1 by a rounding error.
Share = Annotated[float, Within(0, 1 + 1e-9)]

# The keys that a record had in older versions: {record: {old key: field}}.
OldNames = Mapping[type, Mapping[str, str]]


def to_json(value: Any) -> Any:
    """Return a record as JSON; fields that are None by default and in fact are not written."""
    if dataclasses.is_dataclass(value):
        named = ((each, getattr(value, each.name)) for each in dataclasses.fields(value))
        return {each.name: to_json(found) for each, found in named if found is not None or each.default is not None}
    if isinstance(value, Mapping):
        return {name: to_json(entry) for name, entry in value.items()}
    if isinstance(value, Sequence) and not isinstance(value, str | bytes):
        return [to_json(entry) for entry in value]
    return value


def from_json(record: type[T], value: Any, *, file: str | Path | None = None, old_names: OldNames | None = None) -> T:
    """Return a record from its JSON; unknown keys are ignored.

    Args:
        file: the file that the JSON stands in, for errors.
        old_names: the keys of older versions.

    Raises:
        ArtifactError: a field is missing, of another type, or out of its bounds; names file and field.
    """
    return _Reader(file=file, old_names=old_names or {}).read(record, value, "")


@dataclass(frozen=True, kw_only=True)
class _Reader:
    """Reads values as their types say. Places are dotted paths of fields, such as "training.best.epoch"."""

    file: str | Path | None
    old_names: OldNames = field(default_factory=dict)

    def read(self, kind: Any, value: Any, place: str) -> Any:
        """Return the value as a `kind`."""
        origin, args = get_origin(kind), get_args(kind)
        if kind is Any:
            return value
        if origin is Annotated:
            return self._bounded(self.read(args[0], value, place), args[1], place)
        if origin in (Union, UnionType):
            return self._one_of(args, value, place)
        if origin is Literal:
            return value if value in args else self._refuse(value, place, " or ".join(map(repr, args)))
        if origin is list:
            return [self.read(args[0], entry, f"{place}[{i}]") for i, entry in enumerate(self._is(list, value, place))]
        if origin is dict:
            entries = self._is(dict, value, place).items()
            return {name: self.read(args[1], entry, _inside(place, name)) for name, entry in entries}
        return self._record(kind, value, place) if dataclasses.is_dataclass(kind) else self._is(kind, value, place)

    def _record(self, kind: Any, value: Any, place: str) -> Any:
        renamed = self.old_names.get(kind, {})
        given = {renamed.get(name, name): entry for name, entry in self._is(dict, value, place).items()}
        found: dict[str, Any] = {}
        for each in dataclasses.fields(kind):
            inner = _inside(place, each.name)
            if each.name in given:
                found[each.name] = self.read(_types(kind)[each.name], given[each.name], inner)
            elif each.default is MISSING and each.default_factory is MISSING:
                raise ArtifactError("a field is missing", file=self.file, place=inner, fix=_FIX)
        return kind(**found)

    def _one_of(self, kinds: Sequence[Any], value: Any, place: str) -> Any:
        """Return the value as the first of several types that it fits."""
        if value is None and NoneType in kinds:
            return None
        *others, last = (kind for kind in kinds if kind is not NoneType)
        for kind in others:
            try:
                return self.read(kind, value, place)
            except ArtifactError:
                continue
        return self.read(last, value, place)

    def _bounded(self, value: float, bounds: Within, place: str) -> float:
        if not bounds.low <= value <= bounds.high:
            self._refuse(value, place, f"a number from {bounds.low:g} to {bounds.high:g}")
        return value

    def _is(self, kind: type, value: Any, place: str) -> Any:
        if kind in (int, float):
            whole = isinstance(value, int) and not isinstance(value, bool)
            if (whole or (kind is float and isinstance(value, float))) and abs(value) < LARGEST:
                return value
        elif isinstance(value, kind):
            return value
        return self._refuse(value, place, _NAMES[kind])

    def _refuse(self, value: Any, place: str, expected: str) -> Any:
        found = str(value) if isinstance(value, float) and not math.isfinite(value) else value
        raise ArtifactError(
            "a field does not hold what it should",
            file=self.file,
            place=place or None,
            found=found if found is not None else "null",
            expected=expected,
            fix=_FIX,
        )


_FIX = "restore the file from a copy, or run the recipe again"
_NAMES: dict[type, str] = {
    str: "a text",
    int: "a whole number",
    float: "a number",
    bool: "true or false",
    list: "a list",
    dict: "an object",
}


def _inside(place: str, name: str) -> str:
    return f"{place}.{name}" if place else name


@cache
def _types(record: type) -> dict[str, Any]:
    return get_type_hints(record, include_extras=True)
