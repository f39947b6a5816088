"""Describe prepared data: its columns, the rows that were skipped and why, how it was split."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from functools import cached_property
from typing import Any, Literal

from tunewright.data.structure import Form

Kind = Literal["number", "category", "text", "time", "image", "array", "labels", "structure", "audio"]
TargetKind = Literal["category", "number", "labels", "structure"]


@dataclass(frozen=True, kw_only=True)
class Column:
    """One column. An image is stored as height × width × channels bytes, an array as float32 numbers, labels as a list of
    texts, a structure as Arrow's lists and structs, a recording as the bytes of its int16 samples."""

    name: str
    kind: Kind
    missing: int = 0
    shape: tuple[int, ...] | None = None
    """image: (height, width, channels); array: the shape of one cell."""
    separator: str | None = None
    """labels: the sign that divides the cells in the source; None where they are lists there."""
    form: Form = None
    """structure: what each cell holds, as `data/structure.py` writes it."""
    framed: bool = False
    """image: it was resized to the size that the network reads when it was prepared."""


@dataclass(frozen=True, kw_only=True)
class SkippedRows:
    """Rows that were not used, for one reason."""

    reason: str
    count: int
    examples: list[str]
    """The first three, each with its row."""
    fix: str


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """Everything about prepared data but its rows."""

    fingerprint: str
    """The hash of everything that the result depends on."""
    source: str
    format: str
    files: list[dict[str, Any]]
    """path, sha256 and bytes of each file that was read."""
    columns: list[Column]
    input: list[str]
    target: str | None
    target_kind: TargetKind | None
    target_reason: str
    classes: list[str] | None
    read: int
    used: int
    skipped: list[SkippedRows] = field(default_factory=list)
    splits: dict[str, dict[str, Any]] = field(default_factory=dict)
    """For each split its rows, file and sha256."""
    split_rule: str = ""
    notes: list[str] = field(default_factory=list)
    """What the user should know, such as a class that is too rare to be in every split."""
    licence: str | None = None
    citation: str | None = None

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> Manifest:
        facts: dict[str, Any] = dict(value)
        columns = [Column(**_with_shape(entry)) for entry in facts.pop("columns")]
        skipped = [SkippedRows(**entry) for entry in facts.pop("skipped")]
        return cls(**facts, columns=columns, skipped=skipped)

    def column(self, name: str) -> Column:
        """Return the column of that name; KeyError when there is none."""
        return self._by_name[name]

    @cached_property
    def _by_name(self) -> dict[str, Column]:
        return {column.name: column for column in self.columns}


class Rejects:
    """Count the rows that are skipped while data is read, and keep three examples of each reason."""

    def __init__(self) -> None:
        self._found: dict[str, tuple[int, list[str], str]] = {}

    def add(self, reason: str, example: str, fix: str, count: int = 1) -> None:
        """Note `count` rows; `example` says which, such as "row 17: age 'abc'"."""
        known, examples, _ = self._found.get(reason, (0, [], fix))
        if len(examples) < 3:
            examples.append(example)
        self._found[reason] = (known + count, examples, fix)

    def summary(self) -> list[SkippedRows]:
        return [SkippedRows(reason=r, count=c, examples=e, fix=f) for r, (c, e, f) in self._found.items()]

    @property
    def count(self) -> int:
        return sum(count for count, _, _ in self._found.values())


def _with_shape(entry: dict[str, Any]) -> dict[str, Any]:
    shape = entry["shape"]
    return {**entry, "shape": None if shape is None else tuple(shape)}
