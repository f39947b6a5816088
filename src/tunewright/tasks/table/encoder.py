"""Rows of a table as input: numbers standardised, categories one-hot, missing values marked."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch
from torch import Tensor

from tunewright.data.batches.batch import Truth
from tunewright.data.batches.examples import TensorExamples
from tunewright.data.manifest import Column
from tunewright.data.prepared import Prepared, column_array
from tunewright.data.source import ROW
from tunewright.errors import DataError
from tunewright.models.backbone import Backbone
from tunewright.recipe.schema import PublicColumn, Recipe
from tunewright.tasks.base.encoders import InputEncoder
from tunewright.tasks.base.public_statistics import held_by_one, public_categories, public_column, public_scaling
from tunewright.training.privacy.lineage import Statistic

# A category outside the commonest so many in the training split is encoded as all zeros, like an unseen one.
MOST_CATEGORIES = 100


@dataclass(frozen=True, kw_only=True)
class Feature:
    """One input column and how it becomes numbers."""

    column: str
    kind: Literal["number", "category", "array"]
    mean: list[float]
    """number, array: the training split's mean of each value; category: empty."""
    std: list[float]
    marked: bool
    """number: a second value is 1 where the first is missing (then the first is the mean)."""
    categories: list[str]
    """category: one value each."""
    shape: list[int] | None
    """array: the shape of one cell."""

    @property
    def width(self) -> int:
        return len(self.categories) if self.kind == "category" else len(self.mean) + int(self.marked)

    def encode(self, table: pa.Table) -> np.ndarray:
        """Return [N, width] float32."""
        values = table[self.column].combine_chunks()
        if self.kind == "category":
            index = pc.index_in(values.cast(pa.string()), pa.array(self.categories, pa.string()))
            position = pc.fill_null(index, -1).to_numpy(zero_copy_only=False)
            return (position[:, None] == np.arange(len(self.categories))[None, :]).astype(np.float32)
        if self.kind == "array":
            cells = column_array(
                table, Column(name=self.column, kind="array", missing=0, shape=tuple(self.shape or ()))
            )
            numbers = cells.reshape(len(cells), -1).astype(np.float64)
            return ((numbers - self.mean) / self.std).astype(np.float32)
        numbers = values.cast(pa.float64()).to_numpy(zero_copy_only=False)
        missing = np.isnan(numbers)
        scaled = np.where(missing, 0.0, (numbers - self.mean[0]) / self.std[0])
        return np.stack([scaled, missing] if self.marked else [scaled], axis=1).astype(np.float32)


@dataclass(frozen=True, kw_only=True)
class RowEncoder(InputEncoder):
    """The features of a row side by side."""

    features: list[Feature]
    plain_name: ClassVar[str] = "linear model on raw inputs"
    plain_rows: ClassVar[int] = 10_000

    @property
    def input_shape(self) -> tuple[int]:
        return (sum(feature.width for feature in self.features),)

    def encode(self, table: pa.Table) -> Tensor:
        """Return [N, F] float32.

        Raises:
            DataError: an input column is missing, or holds a number that is too large for the network.
        """
        there = set(table.column_names)
        missing = [feature.column for feature in self.features if feature.column not in there]
        if missing:
            raise DataError(
                f"the data lacks {len(missing)} of the model's input columns: {', '.join(missing[:10])}",
                found=", ".join(table.column_names[:20]),
                expected=", ".join(feature.column for feature in self.features[:20]),
                fix="give the columns these names, or train a model from scratch on this data",
            )
        if table.num_rows == 0:
            return torch.empty(0, *self.input_shape)
        return torch.from_numpy(np.concatenate([_finite(feature, table) for feature in self.features], axis=1))

    def examples(self, table: pa.Table, target: Truth) -> TensorExamples:
        return TensorExamples(self.encode(table), target, torch.tensor(np.asarray(table["_row"])))

    def plain(self, train: pa.Table, test: pa.Table) -> tuple[Tensor, Tensor]:
        return self.encode(train), self.encode(test)

    def show(self, table: pa.Table, index: int) -> dict[str, Any]:
        names = [feature.column for feature in self.features if feature.kind != "array"]
        return {"input": {name: table[name][index].as_py() for name in names}}

    def to_json(self) -> dict[str, Any]:
        return {"features": [asdict(feature) for feature in self.features]}

    def statistics(self, prepared: Prepared, owner: str | None) -> list[Statistic]:
        found: list[Statistic] = []
        for feature in self.features:
            if feature.kind == "category":
                alone, known = held_by_one(prepared, feature.column, feature.categories, owner), len(feature.categories)
                found.append(Statistic(column=feature.column, kind="categories", count=known, single=alone))
            else:
                found.append(
                    Statistic(
                        column=feature.column, kind="mean and deviation", count=len(feature.mean) + len(feature.std)
                    )
                )
        return found


def _finite(feature: Feature, table: pa.Table) -> np.ndarray:
    """Return a feature's numbers [N, width] float32.

    Raises:
        DataError: one is beyond what float32 holds.
    """
    with np.errstate(over="ignore"):
        numbers = feature.encode(table)
    good = np.isfinite(numbers)
    if not good.all():
        index = int(np.flatnonzero(~good.all(axis=1))[0])
        raise DataError(
            "the value is not a number, or is too large for float32",
            place=f"row {table[ROW][index].as_py()}, column {feature.column!r}",
            found=table[feature.column][index].as_py(),
            expected="a number like those that the network was trained on",
            fix="correct the cell, or remove the row",
        )
    return numbers


def fit_rows(prepared: Prepared, recipe: Recipe, backbone: Backbone | None, known: RowEncoder | None) -> RowEncoder:
    """Learn means, deviations and categories from the training split, unless a network was trained on known ones, or the
    recipe gives them as public.

    A constant column is kept with a deviation of 1: it tells the network nothing and harms nothing.

    Raises:
        DataError: no usable input column, or one that was asked for by name and cannot be used.
    """
    if known is not None:
        return known
    columns = {column.name: column for column in prepared.manifest.columns}
    table = prepared.table("train", prepared.manifest.input)
    features: list[Feature] = []
    for name in prepared.manifest.input:
        fit = FITTERS.get(columns[name].kind)
        if fit is not None and (given := public_column(recipe, columns[name])) is not None:
            features.append(_public_feature(columns[name], given))
        elif fit is not None:
            features.append(fit(table, columns[name]))
        elif recipe.data.input is not None:
            raise DataError(
                f"the input column {name!r} is of kind {columns[name].kind}, which a table task cannot read",
                file=prepared.manifest.source,
                expected="columns of numbers or categories",
                fix=f"leave {name!r} out of data.input, or choose another task",
            )
    if not features:
        raise DataError(
            "no input column has numbers or categories",
            file=prepared.manifest.source,
            found=", ".join(f"{column.name} ({column.kind})" for column in columns.values()),
            expected="at least one column of numbers or categories other than the target",
            fix="name the columns with data.input, or choose another task (`tunewright init --help` lists them)",
        )
    return RowEncoder(features=features)


def unused_columns(prepared: Prepared) -> list[str]:
    """Input columns that a table task leaves out because of their kind, to be named to the user."""
    inputs = set(prepared.manifest.input)
    return [c.name for c in prepared.manifest.columns if c.name in inputs and c.kind not in FITTERS]


def load_rows(value: dict[str, Any], folder: Path) -> RowEncoder:
    """Load the encoder from its JSON."""
    return RowEncoder(features=[Feature(**feature) for feature in value["features"]])


def _fit_number(table: pa.Table, column: Column) -> Feature:
    values = table[column.name].cast(pa.float64()).to_numpy()
    present = values[~np.isnan(values)]
    mean = float(present.mean()) if len(present) else 0.0
    std = float(present.std()) if len(present) else 0.0
    return _feature(column, mean=[mean], std=[std or 1.0], marked=column.missing > 0)


def _fit_category(table: pa.Table, column: Column) -> Feature:
    counts = pc.value_counts(table[column.name].cast(pa.string()).drop_null())
    ranked = sorted((-entry["counts"], entry["values"]) for entry in counts.to_pylist())
    return _feature(column, categories=[value for _, value in ranked[:MOST_CATEGORIES]])


def _fit_array(table: pa.Table, column: Column) -> Feature:
    cells = column_array(table, column)
    values = cells.reshape(len(cells), -1).astype(np.float64)
    std = values.std(axis=0)
    return _feature(
        column,
        mean=values.mean(axis=0).tolist(),
        std=np.where(std > 0, std, 1.0).tolist(),
        shape=list(column.shape or ()),
    )


def _public_feature(column: Column, given: PublicColumn) -> Feature:
    if column.kind == "category":
        return _feature(column, categories=public_categories(given, column))
    if column.kind == "array":
        mean, std = public_scaling(given, column, int(np.prod(column.shape or ())))
        return _feature(column, mean=mean, std=std, shape=list(column.shape or ()))
    mean, std = public_scaling(given, column)
    return _feature(column, mean=mean, std=std, marked=given.missing)


def _feature(column: Column, **fitted: Any) -> Feature:
    empty: dict[str, Any] = {"mean": [], "std": [], "marked": False, "categories": [], "shape": None}
    return Feature(column=column.name, kind=column.kind, **{**empty, **fitted})  # pyright: ignore[reportArgumentType]


FITTERS: dict[str, Callable[[pa.Table, Column], Feature]] = {
    "number": _fit_number,
    "category": _fit_category,
    "array": _fit_array,
}
