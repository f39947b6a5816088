"""Rows of who, what and when as fields: each value a whole number, by which a network looks up its embedding.

A category is one number, a list of them several, a measured number the bin of the training rows that it falls into. 0 stands
for what was not seen in training, and for what is missing.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch
from scipy import sparse
from torch import Tensor

from tunewright.data.batches.batch import Truth
from tunewright.data.batches.examples import TensorExamples
from tunewright.data.manifest import Column
from tunewright.data.prepared import Prepared
from tunewright.data.recommendation.column_roles import role_columns
from tunewright.errors import DataError, RecipeError
from tunewright.models.backbone import Backbone
from tunewright.models.recommendation.ctr import CLICK_MODELS
from tunewright.recipe.named import parse_named
from tunewright.recipe.schema import Model, PublicColumn, Recipe
from tunewright.tasks.base.encoders import InputEncoder
from tunewright.tasks.base.public_statistics import held_by_one, public_categories, public_column, public_edges
from tunewright.training.privacy.lineage import Statistic

# A measured number falls into one of so many bins of as many training rows each.
BINS = 32
# Of a list at most so many values are read.
MOST_VALUES = 8
FILLING = -1


@dataclass(frozen=True, kw_only=True)
class Field:
    """A column, and how its cells become whole numbers."""

    column: str
    values: list[str]
    """Of a category or list: those that were seen in training; their numbers count from 1."""
    edges: list[float]
    """Of measured numbers: where the next bin begins, rising."""
    count: int
    """How many numbers a row has."""
    kind: Literal["category", "number", "labels"]

    @property
    def size(self) -> int:
        """How many numbers there are to choose from."""
        return 1 + (len(self.edges) + 1 if self.kind == "number" else len(self.values))

    def statistic(self, prepared: Prepared, owner: str | None) -> Statistic:
        """Return what the field holds of the training rows."""
        if self.kind == "number":
            return Statistic(column=self.column, kind="bin edges", count=len(self.edges))
        alone = held_by_one(prepared, self.column, self.values, owner)
        return Statistic(column=self.column, kind="categories", count=len(self.values), single=alone)

    def encode(self, table: pa.Table) -> np.ndarray:
        """Return [N, count] int64."""
        column = table[self.column].combine_chunks()
        if self.kind == "number":
            numbers = column.cast(pa.float64()).to_numpy(zero_copy_only=False)
            return np.where(np.isnan(numbers), 0, 1 + np.searchsorted(self.edges, numbers, side="right"))[:, None]
        known = pa.array(self.values, pa.string())
        if self.kind == "category":
            place = pc.fill_null(pc.index_in(column.cast(pa.string()), known), -1).to_numpy(zero_copy_only=False)
            return (place.astype(np.int64) + 1)[:, None]
        found = np.full((len(column), self.count), FILLING, np.int64)
        place = pc.fill_null(pc.index_in(column.flatten().cast(pa.string()), known), -1).to_numpy(zero_copy_only=False)
        lengths = np.asarray(pc.fill_null(pc.list_value_length(column), 0))
        ends = np.cumsum(lengths)
        for number in range(self.count):
            here = lengths > number
            found[here, number] = place[(ends - lengths)[here] + number] + 1
        return found


@dataclass(frozen=True, kw_only=True)
class FieldEncoder(InputEncoder):
    """The fields of a row side by side."""

    fields: list[Field]
    plain_name: ClassVar[str] = "logistic regression on the values"

    @property
    def input_shape(self) -> tuple[int]:
        return (sum(field.count for field in self.fields),)

    def completed(self, model: Model) -> Model:
        """Return the model block with the fields' sizes among the backbone's options.

        Raises:
            RecipeError: the backbone reads no fields.
        """
        name, options = parse_named(model.backbone or "none", "model.backbone")
        if name not in CLICK_MODELS:
            raise RecipeError(
                "this network does not read fields",
                place="model.backbone",
                found=name if model.backbone else "a list of layers",
                expected=", ".join(CLICK_MODELS),
                fix="model.backbone: deepfm",
            )
        facts = {"sizes": [field.size for field in self.fields], "counts": [field.count for field in self.fields]}
        return model.model_copy(update={"backbone": {name: {**options, **facts}}})

    def encode(self, table: pa.Table) -> Tensor:
        """Return [N, C] int32. Raises DataError when a column is missing."""
        there = set(table.column_names)
        missing = [field.column for field in self.fields if field.column not in there]
        if missing:
            raise DataError(
                f"the data lacks columns that the model reads: {', '.join(missing)}",
                found=", ".join(table.column_names),
                expected=", ".join(field.column for field in self.fields),
                fix="give the columns these names, or train a model from scratch on this data",
            )
        if not table.num_rows:
            return torch.empty(0, *self.input_shape, dtype=torch.int32)
        encoded = np.concatenate([field.encode(table) for field in self.fields], axis=1)
        return torch.from_numpy(encoded.astype(np.int32))

    def examples(self, table: pa.Table, target: Truth) -> TensorExamples:
        return TensorExamples(self.encode(table), target, torch.tensor(np.asarray(table["_row"])))

    def with_lists(self, table: pa.Table) -> pa.Table:
        """Return the table with lists in place of cells of text where the model reads lists: JSON, or words."""
        for field in self.fields:
            if field.kind == "labels" and field.column in table.column_names:
                column = table[field.column]
                if not pa.types.is_list(column.type):
                    cells = pa.array([_words(cell) for cell in column.to_pylist()], pa.list_(pa.string()))
                    table = table.set_column(table.column_names.index(field.column), field.column, cells)
        return table

    def plain(self, train: pa.Table, test: pa.Table) -> tuple[Any, Any]:
        return self._flags(train), self._flags(test)

    def _flags(self, table: pa.Table) -> sparse.csr_matrix:
        """Return [N, all values]: 1 where a row has a value."""
        encoded = self.encode(table).numpy().astype(np.int64)
        starts = np.repeat(np.cumsum([0, *(field.size for field in self.fields[:-1])]), [f.count for f in self.fields])
        there = encoded != FILLING
        rows = np.nonzero(there)[0]
        columns = (encoded + starts)[there]
        size = sum(field.size for field in self.fields)
        return sparse.csr_matrix((np.ones(len(rows), np.float32), (rows, columns)), shape=(len(encoded), size))

    def show(self, table: pa.Table, index: int) -> dict[str, Any]:
        return {"input": {field.column: table[field.column][index].as_py() for field in self.fields}}

    def to_json(self) -> dict[str, Any]:
        return {"fields": [asdict(field) for field in self.fields]}

    def statistics(self, prepared: Prepared, owner: str | None) -> list[Statistic]:
        return [entry.statistic(prepared, owner) for entry in self.fields]


def fit_fields(
    prepared: Prepared, recipe: Recipe, backbone: Backbone | None, known: FieldEncoder | None
) -> FieldEncoder:
    """Learn the fields' values and bins from the training split, unless a network was trained on known ones, or the recipe
    gives them as public.

    Raises:
        DataError: a column that the recipe names cannot be a field, or there is none.
    """
    if known is not None:
        return known
    columns = {column.name: column for column in prepared.manifest.columns}
    names = [name for name in prepared.manifest.input if columns[name].kind in ("category", "labels", "number")]
    refused = [name for name in recipe.data.input or () if name not in names]
    if refused or not names:
        raise DataError(
            "a column cannot be a field" if refused else "no column can be a field",
            file=prepared.manifest.source,
            found=", ".join(f"{name} ({columns[name].kind})" for name in refused or prepared.manifest.input),
            expected="categories, lists of them, or numbers",
            fix="leave it out of data.input" if refused else "name columns with data.input",
        )
    table = prepared.table("train", names)
    identities = role_columns(recipe.data, columns)
    fields: list[Field] = []
    for name in names:
        if (given := public_column(recipe, columns[name])) is not None:
            fields.append(_public_field(columns[name], given, name in identities))
        else:
            fields.append(fit_field(table, name, columns[name].kind, name in identities))
    return FieldEncoder(fields=fields)


def _public_field(column: Column, given: PublicColumn, identity: bool) -> Field:
    if column.kind == "number" and not identity:
        return Field(column=column.name, values=[], edges=public_edges(given, column), count=1, kind="number")
    values = public_categories(given, column)
    if column.kind == "labels":
        return Field(column=column.name, values=values, edges=[], count=MOST_VALUES, kind="labels")
    return Field(column=column.name, values=values, edges=[], count=1, kind="category")


def load_fields(value: dict[str, Any], folder: Path) -> FieldEncoder:
    """Load the encoder from its JSON."""
    return FieldEncoder(fields=[Field(**field) for field in value["fields"]])


def _words(cell: str | None) -> list[str]:
    try:
        found = json.loads(cell) if cell and cell[0] == "[" else None
    except ValueError:
        found = None
    return [str(entry) for entry in found] if isinstance(found, list) else (cell or "").split()


def fit_field(table: pa.Table, name: str, kind: str, identity: bool) -> Field:
    """Fit the values or bins of a column; a number that is a name, such as a user's, is one of many values."""
    column = table[name].combine_chunks()
    if kind == "number" and not identity:
        numbers = column.cast(pa.float64()).drop_null().to_numpy()
        edges = np.unique(np.quantile(numbers, np.arange(1, BINS) / BINS)) if len(numbers) else np.zeros(1)
        return Field(column=name, values=[], edges=edges.tolist(), count=1, kind="number")
    count = 1
    if kind == "labels":
        count = int(min(MOST_VALUES, max(1, pc.max(pc.list_value_length(column)).as_py() or 1)))
        column = column.flatten()
    values = pc.unique(column.cast(pa.string()).drop_null()).to_pylist()
    return Field(
        column=name, values=sorted(values), edges=[], count=count, kind="labels" if kind == "labels" else "category"
    )
