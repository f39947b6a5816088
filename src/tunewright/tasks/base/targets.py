"""How a target column becomes a tensor, and the network's output becomes a prediction again."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch
from torch import Tensor

from tunewright.data.prepare.multilabel import label_matrix
from tunewright.data.prepared import Prepared
from tunewright.errors import DataError
from tunewright.recipe.schema import Recipe
from tunewright.tasks.base.public_statistics import held_by_one, public_column, public_scaling
from tunewright.training.privacy.lineage import Statistic


@dataclass(frozen=True, kw_only=True)
class TargetEncoder:
    """Classes by their index, or several of them; or numbers, standardised on the training split so that one learning rate
    fits all units."""

    column: str
    classes: list[str] | None
    mean: float = 0.0
    std: float = 1.0
    several: bool = False
    """A row has any number of the classes."""

    @property
    def outputs(self) -> int:
        """The size of the network's output: K logits, or 1."""
        return len(self.classes) if self.classes is not None else 1

    def encode(self, table: pa.Table) -> Tensor:
        """[N] int64 class indices, [N, K] uint8 of several classes, or [N] float32 standardised numbers.

        Raises:
            DataError: a value that is none of the classes.
        """
        values = table[self.column]
        if self.several:
            return self._encode_several(table)
        if self.classes is None:
            return torch.from_numpy(((values.to_numpy() - self.mean) / self.std).astype(np.float32))
        indices = pc.index_in(values.cast(pa.string()), pa.array(self.classes))
        if indices.null_count:
            position = pc.is_null(indices).to_pylist().index(True)
            raise self._unknown_class(values[position].as_py(), table["_row"][position].as_py())
        return torch.from_numpy(indices.to_numpy().astype(np.int64))

    def _encode_several(self, table: pa.Table) -> Tensor:
        values, classes = table[self.column], self.classes or []
        unknown = pc.unique(pc.list_flatten(values)).to_pylist()
        if strange := [value for value in unknown if value not in classes]:
            position = next(index for index, cell in enumerate(values.to_pylist()) if strange[0] in cell)
            raise self._unknown_class(strange[0], table["_row"][position].as_py())
        return torch.from_numpy(label_matrix(values, classes))

    def _unknown_class(self, value: object, row: int) -> DataError:
        return DataError(
            f"the target {self.column!r} has a value that is none of the model's classes",
            place=f"row {row}",
            found=value,
            expected=f"one of {', '.join((self.classes or [])[:20])}",
            fix="correct the value, or give the network a new head (model.head)",
        )

    def decode(self, outputs: Tensor) -> np.ndarray:
        """Logits [N, K] as they are, or the standardised [N, 1] as [N] numbers in the target's own unit."""
        array = outputs.cpu().double().numpy()
        return array if self.classes is not None else array.reshape(-1) * self.std + self.mean

    def truth(self, target: Tensor) -> np.ndarray:
        """What `encode` gave, as the metrics want it: class indices or [N, K] of 0 and 1, or numbers in the target's own unit."""
        array = target.cpu().numpy()
        return array if self.classes is not None else array.astype(np.float64) * self.std + self.mean

    def statistic(self, prepared: Prepared, owner: str | None) -> Statistic:
        """What of the training rows stands in the encoder."""
        if self.classes is None:
            return Statistic(column=self.column, kind="mean and deviation", count=2)
        alone = held_by_one(prepared, self.column, self.classes, owner)
        return Statistic(column=self.column, kind="classes", count=len(self.classes), single=alone)

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def fit_target(prepared: Prepared, recipe: Recipe | None = None) -> TargetEncoder | None:
    """The encoder for a prepared set's target; None for unlabelled data.

    Args:
        recipe: may give a number's mean and deviation as public.

    Raises:
        DataError: fewer than two classes, or a number that never changes.
    """
    manifest = prepared.manifest
    if manifest.target is None:
        return None
    if manifest.target_kind in ("category", "labels"):
        classes = manifest.classes or []
        if len(classes) < 2:
            raise DataError(
                f"the target {manifest.target!r} has {len(classes)} class",
                file=manifest.source,
                found=", ".join(classes),
                expected="at least two classes",
                fix="name another column with data.target, or set data.labelled: false",
            )
        return TargetEncoder(column=manifest.target, classes=classes, several=manifest.target_kind == "labels")
    column = manifest.column(manifest.target)
    if recipe is not None and (given := public_column(recipe, column)) is not None:
        means, stds = public_scaling(given, column)
        return TargetEncoder(column=manifest.target, classes=None, mean=means[0], std=stds[0])
    values = prepared.table("train", [manifest.target])[manifest.target].to_numpy()
    std = float(values.std())
    if not std > 0:
        raise DataError(
            f"the target {manifest.target!r} has the same value in every training row",
            file=manifest.source,
            found=values[0] if len(values) else "no rows",
            expected="numbers that differ",
            fix="name another column with data.target",
        )
    return TargetEncoder(column=manifest.target, classes=None, mean=float(values.mean()), std=std)
