"""Infer what each column holds (numbers, categories, text or times) from all of its values, and choose the target."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

import pyarrow as pa
import pyarrow.compute as pc

from tunewright.data.manifest import Column, Kind, TargetKind
from tunewright.data.source import ROW
from tunewright.data.structure import is_list_of_names
from tunewright.errors import DataError
from tunewright.recipe.schema import Data

# A column is a number when at least this share of its values is; the other rows are skipped, and named.
NUMBER_SHARE = 0.95
MOST_CATEGORIES = 100
# Different values that are remembered of a column that can be the target.
TRACKED = 10_000
LONG = 200

NUMBER = r"^\s*[-+]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][-+]?[0-9]+)?\s*$"
TIME = r"^\d{4}-\d{2}-\d{2}([T ]\d{2}:\d{2}(:\d{2}(\.\d+)?)?(Z|[+-]\d{2}:?\d{2})?)?$"
TARGET_NAMES = ("label", "target", "class", "y", "category", "outcome")
# The same of lists and records.
STRUCTURE_NAMES = ("tags", "ner_tags", "labels", "spans", "entities", "objects", "boxes", "annotations", *TARGET_NAMES)
# Kinds that are the target only of a task that wants them.
NO_TARGETS: tuple[Kind, ...] = ("image", "array", "structure")


@dataclass
class Seen:
    """What has been seen of one column so far."""

    rows: int = 0
    missing: int = 0
    numbers: int = 0
    times: int = 0
    characters: int = 0
    longest: int = 0
    """Characters of the longest text."""
    tracked: int = TRACKED
    """How many different values are remembered."""
    distinct: set[str] | None = field(default_factory=set)
    """None once there are more than are tracked."""

    def look(self, column: pa.ChunkedArray) -> None:
        self.rows += len(column)
        self.missing += column.null_count
        present = column.drop_null()
        if not len(present):
            return
        if pa.types.is_floating(column.type):
            self.numbers += len(present)
        else:
            if (count := _count_numbers(present)) < len(present):
                self.times += pc.sum(pc.match_substring_regex(present, TIME)).as_py() or 0
            self.numbers += count
            lengths = pc.utf8_length(present)
            self.characters += pc.sum(lengths).as_py()
            self.longest = max(self.longest, pc.max(lengths).as_py())
        if self.distinct is not None:
            self.distinct.update(_short(str(value)) for value in pc.unique(present).to_pylist())
            if len(self.distinct) > self.tracked:
                self.distinct = None

    @property
    def present(self) -> int:
        return self.rows - self.missing


def _short(value: str) -> str:
    """Return the value, or a prefix and hash of a long one: many long texts need not be kept in memory."""
    if len(value) <= LONG:
        return value
    return f"{value[:LONG]}… {hashlib.blake2b(value.encode(), digest_size=16).hexdigest()}"


def _count_numbers(present: pa.ChunkedArray) -> int:
    """Return how many of the texts are finite numbers. A whole block that casts is the common, fast case."""
    try:
        numbers = pc.cast(present, pa.float64())
        return pc.sum(pc.is_finite(numbers)).as_py()
    except pa.ArrowInvalid:
        return pc.sum(pc.match_substring_regex(present, NUMBER)).as_py()


def settle_lists(known: Mapping[str, Column], kind: TargetKind | None) -> dict[str, Column]:
    """Return the columns of a source as a task reads them: lists of names are the labels of a row, in no order and each once,
    unless the task predicts lists or records."""
    if kind == "structure":
        return dict(known)
    return {
        name: Column(name=name, kind="labels")
        if column.kind == "structure" and is_list_of_names(column.form)
        else column
        for name, column in known.items()
    }


def infer_columns(
    tables: Iterable[pa.Table], known: dict[str, Column], targets: Callable[[list[str]], set[str]]
) -> tuple[dict[str, Column], dict[str, Seen]]:
    """Return the kind of each column, after one pass over all rows; a column that is known keeps its kind.

    Args:
        targets: which of all columns can become the target. Of the others, of which there may be very many, only as many
            different values are remembered as categories have.
    """
    seen: dict[str, Seen] = {}
    names: list[str] = []
    for table in tables:
        if not names:
            names = [name for name in table.column_names if name != ROW]
            candidates = targets([*known, *(name for name in names if name not in known)])
            looked_at = [name for name in names if name not in known or known[name].kind == "number"]
            seen = {name: Seen(tracked=TRACKED if name in candidates else MOST_CATEGORIES) for name in looked_at}
        elif other := set(names) ^ (set(table.column_names) - {ROW}):
            raise DataError(
                "the parts of the data have different columns",
                found=f"{min(other)!r} is not in all of them",
                expected="the same columns in all parts",
                fix="give all parts the same columns",
            )
        for name, what in seen.items():
            what.look(table[name])
    columns = {
        name: known.get(name) or Column(name=name, kind=_kind(what), missing=what.missing)
        for name, what in seen.items()
    }
    return {**known, **columns}, seen


def _kind(seen: Seen) -> Kind:
    if seen.present == 0:
        return "category"
    if seen.numbers >= NUMBER_SHARE * seen.present:
        return "number"
    if seen.times >= NUMBER_SHARE * seen.present:
        return "time"
    small = seen.distinct is not None and len(seen.distinct) <= MOST_CATEGORIES
    # Few values that recur are categories; few rows of free text are not.
    if small and (len(seen.distinct or ()) <= max(2, seen.present // 2) or seen.characters / seen.present <= 20):
        return "category"
    return "text"


def possible_targets(data: Data, columns: Mapping[str, Column], declared: str | None, names: list[str]) -> set[str]:
    """Return the columns among which `choose_target` chooses.

    Args:
        columns: those whose kind is known already.
        names: all of them, in order.
    """
    if isinstance(data.target, str):
        return {data.target}
    if declared is not None:
        return {declared}
    inputs = set(data.input or ())
    open_to = [
        name for name in names if name not in inputs and not (name in columns and columns[name].kind in NO_TARGETS)
    ]
    return {name for name in open_to if name.lower() in TARGET_NAMES} | set(open_to[-1:])


def choose_target(
    data: Data, columns: dict[str, Column], declared: str | None, file: str, kind: TargetKind
) -> tuple[str, str]:
    """Return the target column, and the reason in words.

    Args:
        declared: the target that the source itself names.
        kind: what the task predicts. Of several labels a row, a column of lists is the target before one with a fitting name;
            of lists and records, only such a column is chosen where there is one.

    Raises:
        DataError: the recipe names one that is not there, or none can be the target.
    """
    names = list(columns)
    if isinstance(data.target, list):
        raise DataError(
            "several target columns are for tasks with several labels a row",
            file=file,
            place="data.target",
            found=", ".join(data.target),
            expected="one column",
            fix="name one column, or take task: text-multilabel-classification",
        )
    if data.target is not None:
        if data.target not in columns:
            raise missing_column("data.target", data.target, names, file)
        return data.target, "named in the recipe"
    inputs = set(data.input or ())
    candidates = [name for name in names if name not in inputs and columns[name].kind not in NO_TARGETS]
    fitting = [name for name in names if name not in inputs and columns[name].kind == kind]
    if declared is not None and (kind != "structure" or declared in fitting or not fitting):
        return declared, "the source says so"
    if kind in ("labels", "structure") and len(fitting) == 1:
        return fitting[0], "it is the only column of lists"
    if kind == "structure" and fitting:
        candidates = fitting
    for wanted in STRUCTURE_NAMES if kind == "structure" else TARGET_NAMES:
        for name in candidates:
            if name.lower() == wanted:
                return name, f"it is named {name!r}"
    if not candidates:
        raise DataError(
            "no column can be the target",
            file=file,
            found=", ".join(names),
            expected="a column with labels or numbers",
            fix="name it with data.target, or set data.labelled: false",
        )
    return candidates[-1], "it is the last column; name another one with data.target"


def choose_inputs(data: Data, columns: dict[str, Column], target: str | None, file: str) -> list[str]:
    """Return the input columns: those that the recipe names, or all but the target and what only serves the split.

    Lists and records are inputs by themselves only with a target of their kind, as words are with their tags.

    Raises:
        DataError: the recipe names one that is not there, or the target itself.
    """
    for name in data.input or ():
        if name not in columns:
            raise missing_column("data.input", name, list(columns), file)
        if name == target:
            raise DataError(
                "the target is among the inputs",
                file=file,
                place="data.input",
                found=name,
                expected="other columns",
                fix=f"take {name!r} out of data.input",
            )
    if data.input:
        return list(data.input)
    images = [name for name, column in columns.items() if column.kind == "image" and name != target]
    skipped = () if target is not None and columns[target].kind == "structure" else ("structure",)
    others = [name for name in columns if name not in (target, data.split.column)]
    return images or [name for name in others if columns[name].kind not in skipped]


def missing_column(where: str, name: str, names: list[str], file: str) -> DataError:
    """Return the error for a column that the recipe names and the data lacks."""
    import difflib

    near = difflib.get_close_matches(name, names, n=1)
    return DataError(
        f"the data has no column {name!r}",
        file=file,
        place=where,
        found=", ".join(names[:20]),
        expected=name,
        fix=f"did you mean {near[0]!r}?" if near else f"correct {where}",
    )


def sort_classes(values: Iterable[str]) -> list[str]:
    """Class names in order: as numbers when all of them are whole numbers, otherwise as text."""
    found = sorted(set(values))
    if all(re.fullmatch(r"-?\d{1,18}", value) for value in found):
        return sorted(found, key=int)
    return found
