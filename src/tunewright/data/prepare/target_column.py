"""What a column means as the target: classes, lists of classes, or numbers."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace

import pyarrow as pa

from tunewright.data.column_types import Seen
from tunewright.data.manifest import Column, TargetKind
from tunewright.data.prepare.multilabel import find_separator
from tunewright.errors import DataError
from tunewright.limits import CLASS_NAME, CLASSES
from tunewright.recipe.schema import Data

MOST_CLASSES = 10_000


def rating_column(data: Data) -> str:
    """The column that `data.liked` is about. Raises DataError when it is not named."""
    if isinstance(data.target, str):
        return data.target
    raise DataError(
        "data.liked makes classes of a rating, and it is not said which column holds it",
        file=data.source,
        place="data.target",
        found=data.target,
        expected="one column of numbers",
        fix="data.target: rating",
    )


def labels_column(column: Column, rows: Iterator[pa.Table], data: Data) -> tuple[Column, str]:
    """The target as lists of classes, and how its cells are read.

    Args:
        rows: all of the data, as the source has them.

    Raises:
        DataError: it holds numbers with fractions, or text that nothing divides.
    """
    if column.kind == "labels":
        return column, "its cells are lists"
    if column.kind in ("image", "array", "time", "structure"):
        raise DataError(
            f"the target {column.name!r} holds no classes",
            file=data.source,
            found=column.kind,
            expected="lists of classes, or text that a sign divides",
            fix="name another column with data.target",
        )
    found = find_separator(data, column.name, rows, data.source)
    return replace(column, kind="labels", separator=found.sign), found.reason


def without_strata(data: Data) -> tuple[Data, list[str]]:
    """Rows with several classes cannot be drawn from strata: the split is at random, and says so."""
    if data.split.by != "stratified":
        return data, []
    split = data.split.model_copy(update={"by": "random"})
    note = "split at random and not stratified: rows with several classes belong to no single stratum"
    return data.model_copy(update={"split": split}), [note]


def structure_column(column: Column, data: Data) -> Column:
    """The target as lists or records.

    Raises:
        DataError: its cells hold something else.
    """
    if column.kind == "structure":
        return column
    raise DataError(
        f"the target {column.name!r} does not hold lists or records",
        file=data.source,
        place=f"column {column.name!r}",
        found=column.kind,
        expected='a list or record in each cell, such as ["O", "B-PER"]; in a CSV file written as JSON',
        fix="name another column with data.target",
    )


def target_column(column: Column, kind: TargetKind, seen: Seen | None, data: Data) -> Column:
    """The target as the task wants it.

    Raises:
        DataError: numbers are wanted and there is text, or classes are wanted and there are measurements.
    """
    if column.kind in ("labels", "structure"):
        lists = "take task: text-multilabel-classification, or " if column.kind == "labels" else ""
        raise DataError(
            f"the target {column.name!r} holds lists or records",
            file=data.source,
            expected="one number a row" if kind == "number" else "one class a row",
            fix=f"{lists}name another column with data.target",
        )
    if kind == "number":
        if column.kind != "number":
            example = next(iter(sorted(seen.distinct or ())), None) if seen else None
            raise DataError(
                f"the target {column.name!r} does not hold numbers",
                file=data.source,
                found=example or column.kind,
                expected="numbers, for a regression",
                fix="name another column with data.target, or take task: tabular-classification",
            )
        return column
    if seen is not None and seen.distinct is None:
        raise DataError(
            f"the target {column.name!r} has more than {MOST_CLASSES:,} different values",
            file=data.source,
            found="text or measurements",
            expected="classes that come again and again",
            fix="name another column with data.target"
            + (", or take task: tabular-regression" if column.kind == "number" else ""),
        )
    fractions = (
        [value for value in (seen.distinct or ()) if "." in value and not value.endswith(".0")]
        if seen and column.kind == "number"
        else []
    )
    if seen is not None and len(fractions) > 20 and len(fractions) > seen.present // 10:
        raise DataError(
            f"the target {column.name!r} holds measurements, not classes",
            file=data.source,
            found=", ".join(sorted(fractions)[:3]),
            expected="classes that come again and again",
            fix="take task: tabular-regression, or name another column with data.target",
        )
    if seen is not None:
        CLASS_NAME.require(
            seen.longest,
            f"the target {column.name!r} holds texts, not classes",
            file=data.source,
            fix="name another column with data.target",
        )
    return replace(column, kind="category")


def require_few_classes(classes: Mapping[str, set[str]], target: str | None, file: str) -> None:
    """Raise DataError where the splits have too many classes, or too long ones, to be kept in memory."""
    for names in classes.values():
        CLASSES.require(len(names), f"the target {target!r} has too many different classes", file=file)
        CLASS_NAME.require(max(map(len, names), default=0), f"a class of the target {target!r} is too long", file=file)
