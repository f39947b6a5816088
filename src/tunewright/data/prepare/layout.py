"""Decide what prepared data will hold before its rows are written: columns, target, inputs and how rows are divided."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property, partial

from tunewright.data.column_types import (
    Seen,
    choose_inputs,
    choose_target,
    infer_columns,
    missing_column,
    possible_targets,
    settle_lists,
)
from tunewright.data.manifest import Column, TargetKind
from tunewright.data.prepare.json_cells import read_json_cells
from tunewright.data.prepare.multilabel import join_flags
from tunewright.data.prepare.row_filter import all_rows
from tunewright.data.prepare.target_column import (
    labels_column,
    rating_column,
    structure_column,
    target_column,
    without_strata,
)
from tunewright.data.recommendation.column_roles import role_columns, speaker_column
from tunewright.data.recommendation.implicit_feedback import binarize
from tunewright.data.recommendation.k_core import keep_core
from tunewright.data.source import Source
from tunewright.errors import DataError
from tunewright.recipe.schema import Data, Split

# Splits that divide the rows of each group.
BY_EACH = ("within", "last")
# With fewer speakers than these a split by speaker would often leave one of its parts empty.
FEW_SPEAKERS = 10


@dataclass(frozen=True, kw_only=True)
class Target:
    """What is predicted."""

    column: str | None = None
    kind: TargetKind | None = None
    reason: str = "not wanted: the data is used without labels"
    """Why it is this column, in words."""

    @property
    def class_column(self) -> str | None:
        """The column of classes; None where the target holds none."""
        return self.column if self.kind in ("category", "labels") else None


@dataclass(frozen=True, kw_only=True)
class Layout:
    """What is decided after the first pass over the rows."""

    source: Source
    data: Data
    """The recipe's block, with the split that is used."""
    columns: dict[str, Column]
    seen: dict[str, Seen]
    """What the first pass saw of the columns whose kind was inferred."""
    inputs: list[str]
    target: Target
    notes: list[str]

    @cached_property
    def used(self) -> set[str]:
        """The columns whose cells must be usable."""
        split = self.data.split
        return {*self.inputs} | {name for name in (self.target.column, split.column, split.order) if name is not None}


def plan_layout(source: Source, data: Data, kind: TargetKind | None) -> Layout:
    """Look at all rows once and decide.

    Args:
        kind: what the task predicts; None: there is no target.

    Raises:
        DataError: the recipe names a column that is not there, or one of another kind than is wanted.
    """
    flags = data.target if kind == "labels" and isinstance(data.target, list) else None
    if flags is not None:
        source = join_flags(source, data.source, flags)
        data = data.model_copy(update={"target": source.target})
    if data.liked is not None:
        source = binarize(source, rating_column(data), data.liked, data.source)
    if data.core is not None:
        source = keep_core(source, data, data.core)
    if kind == "structure":
        source = read_json_cells(source, data.limit)
    source = replace(source, known=settle_lists(source.known, kind))
    columns, seen = infer_columns(
        all_rows(source, data.limit),
        dict(source.known),
        partial(possible_targets, data, source.known, source.target),
    )
    notes: list[str] = []
    target = Target() if kind is None else _target(source, data, columns, seen, kind)
    if flags is not None:
        target = replace(target, reason=f"the columns {', '.join(flags)}, named in the recipe")
    if kind == "labels":
        data, notes = without_strata(data)
    inputs = choose_inputs(data, columns, target.column, data.source)
    data = data.model_copy(update={"split": _split(source, data, columns, seen)})
    _require_split_columns(data, columns)
    _require_plain_split(data, columns, target.column)
    return Layout(source=source, data=data, columns=columns, seen=seen, inputs=inputs, target=target, notes=notes)


def _target(source: Source, data: Data, columns: dict[str, Column], seen: dict[str, Seen], kind: TargetKind) -> Target:
    """The target; its column in `columns` gets the kind that the task wants."""
    name, reason = choose_target(data, columns, source.target, data.source, kind)
    if kind == "labels":
        columns[name], how = labels_column(columns[name], all_rows(source, data.limit), data)
        reason = f"{reason}; {how}"
    elif kind == "structure":
        columns[name] = structure_column(columns[name], data)
    else:
        columns[name] = target_column(columns[name], kind, seen.get(name), data)
    return Target(column=name, kind=kind, reason=reason)


def _split(source: Source, data: Data, columns: dict[str, Column], seen: dict[str, Seen]) -> Split:
    """How rows are divided, with what the recipe leaves open."""
    split = data.split if data.split.by is not None else _usual_split(data.split, source, columns, seen)
    if split.by in BY_EACH and split.column is None:
        return split.model_copy(update={"column": role_columns(data, columns)[0]})
    return split


def _require_split_columns(data: Data, columns: dict[str, Column]) -> None:
    """Raise DataError where the split needs a column that is not there."""
    split = data.split
    if split.order is not None and split.order not in columns:
        raise missing_column("data.split.order", split.order, list(columns), data.source)
    if split.by not in ("group", "time", *BY_EACH) or (split.column or "") in columns:
        return
    if split.column is None:
        raise DataError(
            f"a split by {split.by} needs a column",
            file=data.source,
            place="data.split",
            found="no column",
            expected=", ".join(columns),
            fix="data.user: NAME OF THE USER COLUMN"
            if split.by in BY_EACH
            else f"data.split.column: NAME OF THE {split.by.upper()}",
        )
    raise missing_column("data.split.column", split.column, list(columns), data.source)


def _require_plain_split(data: Data, columns: dict[str, Column], target: str | None) -> None:
    """Raise DataError where rows are to be divided by a column of lists or records."""
    by = {"data.split.column": data.split.column, "data.split.order": data.split.order}
    if data.split.by == "stratified":
        by["data.split.by"] = target
    for place, name in by.items():
        if name is not None and columns[name].kind in ("labels", "structure"):
            raise DataError(
                f"rows cannot be divided by {name!r}, whose cells are lists or records",
                file=data.source,
                place=place,
                found=f"by: {data.split.by}",
                expected="a column with one plain value a row" if place != "data.split.by" else "by: random",
                fix="data.split: {by: random}, or name another column",
            )


def _usual_split(split: Split, source: Source, columns: dict[str, Column], seen: dict[str, Seen]) -> Split:
    """How rows are divided where the recipe does not say: at random, but no speaker is in two splits."""
    speaker = speaker_column(columns)
    if source.format != "speech" or speaker is None:
        return split.model_copy(update={"by": "random"})
    speakers = seen[speaker].distinct if speaker in seen else None
    if speakers is not None and len(speakers) < FEW_SPEAKERS:
        return split.model_copy(update={"by": "random"})
    return split.model_copy(update={"by": "group", "column": speaker})
