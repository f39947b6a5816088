"""How a target column becomes a tensor, and the network's outputs become predictions again."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, fields
from functools import partial
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch
from torch import Tensor

from tunewright.data.prepare.multilabel import label_matrix
from tunewright.data.prepare.target_column import TargetKind
from tunewright.data.prepared import Prepared
from tunewright.errors import DataError
from tunewright.evaluation.metrics import Outcome
from tunewright.recipe.schema import Recipe
from tunewright.tasks.base.public_statistics import held_by_one, public_column, public_scaling
from tunewright.training.privacy.lineage import Statistic

# One tensor [N, ...] for all examples, or one tensor for each where they differ in size.
EncodedTarget = Tensor | list[Tensor]
# Outputs [B, K] → a number for each example [B], whose change is explained.
Quantity = Callable[[Tensor], Tensor]


@dataclass(frozen=True, kw_only=True)
class TargetEncoder(ABC):
    """Turns a target column into tensors and outputs into answers; fitted on the training split only."""

    column: str
    classes: list[str] | None = None
    """What each output stands for; None: the outputs have no names."""

    one_class: ClassVar[bool] = False
    """Whether each row has exactly one of the classes."""
    several: ClassVar[bool] = False
    """Whether each row has any number of the classes."""

    @property
    @abstractmethod
    def outputs(self) -> int:
        """The size of the network's output for an example or, of a sequence, for each of its places."""

    @abstractmethod
    def encode(self, table: pa.Table) -> EncodedTarget:
        """Return the target of each row.

        Raises:
            DataError: a value that the encoder does not know.
        """

    @abstractmethod
    def statistic(self, prepared: Prepared, owner: str | None) -> Statistic:
        """Return what the encoder holds of the training rows."""

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True, kw_only=True)
class ColumnTarget(TargetEncoder):
    """A target with one row of outputs for each example, as classes, labels and numbers are."""

    @abstractmethod
    def encode(self, table: pa.Table) -> Tensor: ...

    @abstractmethod
    def decode(self, outputs: Tensor) -> np.ndarray:
        """Return outputs [N, K] as the metrics read them."""

    @abstractmethod
    def truth(self, target: Tensor) -> np.ndarray:
        """Return what `encode` gave as the metrics read it."""

    @abstractmethod
    def answers(self, outputs: np.ndarray) -> list[dict[str, Any]]:
        """Return a prediction for each row of decoded outputs."""

    @abstractmethod
    def mistake(self, outcome: Outcome, index: int) -> dict[str, Any]:
        """Return {"target", "prediction", "confidence", "loss"} of one row."""

    @abstractmethod
    def explained(self, outputs: Tensor, wanted: str | None) -> tuple[Quantity, list[str], list[str]]:
        """Return the quantity to explain for outputs [1, K], the answer in words, and the quantity's name.

        Args:
            wanted: the class to explain; None: the predicted one.

        Raises:
            DataError: there is no such class.
        """

    @abstractmethod
    def followed(self, truth: np.ndarray, most: int) -> list[tuple[str, np.ndarray, Quantity]]:
        """Return the answers that concepts are related to, at most `most`: name, rows [N] bool with this answer, quantity."""


@dataclass(frozen=True, kw_only=True)
class NamedTarget(ColumnTarget):
    """A target whose outputs are logits, one for each class."""

    classes: list[str] = field()

    @property
    def outputs(self) -> int:
        return len(self.classes)

    def decode(self, outputs: Tensor) -> np.ndarray:
        """Return the logits [N, K] as they are."""
        return outputs.cpu().double().numpy()

    def truth(self, target: Tensor) -> np.ndarray:
        return target.cpu().numpy()

    def statistic(self, prepared: Prepared, owner: str | None) -> Statistic:
        alone = held_by_one(prepared, self.column, self.classes, owner)
        return Statistic(column=self.column, kind="classes", count=len(self.classes), single=alone)

    def explained(self, outputs: Tensor, wanted: str | None) -> tuple[Quantity, list[str], list[str]]:
        chosen = int(outputs[0].argmax()) if wanted is None else index_of(wanted, self.classes, "class")
        name = self.classes[chosen]
        answer = ["{}, {}", name, f"{float(self.chances(outputs)[0][chosen]):.1%}"]
        return self.log_odds(chosen), answer, ["the log odds of {}", name]

    def followed(self, truth: np.ndarray, most: int) -> list[tuple[str, np.ndarray, Quantity]]:
        members = self.members(truth)
        common = np.argsort(-members.sum(1), kind="stable")[:most]
        return [(self.classes[k], members[k], self.log_odds(int(k))) for k in common.tolist()]

    @abstractmethod
    def chances(self, outputs: Tensor) -> Tensor:
        """Return the probabilities [B, K] of logits [B, K]."""

    @abstractmethod
    def log_odds(self, chosen: int) -> Quantity:
        """Return the log odds of one of the classes."""

    @abstractmethod
    def members(self, truth: np.ndarray) -> np.ndarray:
        """Return [K, N] bool: which rows have each class."""

    def unknown_class(self, value: object, row: int) -> DataError:
        return DataError(
            f"the target {self.column!r} has a value that is not one of the model's classes",
            place=f"row {row}",
            found=value,
            expected=f"one of {', '.join(self.classes[:20])}",
            fix="correct the value, or give the network a new head (model.head)",
        )


@dataclass(frozen=True, kw_only=True)
class ClassTarget(NamedTarget):
    """One class for each row, by its index."""

    one_class: ClassVar[bool] = True

    def encode(self, table: pa.Table) -> Tensor:
        """Return [N] int64 class indices."""
        values = table[self.column]
        indices = pc.index_in(values.cast(pa.string()), pa.array(self.classes))
        if indices.null_count:
            position = pc.is_null(indices).to_pylist().index(True)
            raise self.unknown_class(values[position].as_py(), table["_row"][position].as_py())
        return torch.from_numpy(indices.to_numpy().astype(np.int64))

    def answers(self, outputs: np.ndarray) -> list[dict[str, Any]]:
        outcome = Outcome(outputs, np.zeros(len(outputs), dtype=np.int64))
        return [
            {
                "prediction": self.classes[index],
                "confidence": float(chances[index]),
                "probabilities": dict(zip(self.classes, map(float, chances))),
            }
            for index, chances in zip(outcome.predicted, outcome.probabilities)
        ]

    def mistake(self, outcome: Outcome, index: int) -> dict[str, Any]:
        return {
            "target": self.classes[outcome.target[index]],
            "prediction": self.classes[outcome.predicted[index]],
            "confidence": float(outcome.probabilities[index].max()),
            "loss": float(-outcome.log_probabilities[index, outcome.target[index]]),
        }

    def chances(self, outputs: Tensor) -> Tensor:
        return outputs.softmax(1)

    def log_odds(self, chosen: int) -> Quantity:
        others = [place for place in range(self.outputs) if place != chosen]
        return lambda found: found[:, chosen] - found[:, others].logsumexp(1)

    def members(self, truth: np.ndarray) -> np.ndarray:
        return truth == np.arange(len(self.classes))[:, None]


@dataclass(frozen=True, kw_only=True)
class LabelsTarget(NamedTarget):
    """Any number of the classes for each row."""

    several: ClassVar[bool] = True

    def encode(self, table: pa.Table) -> Tensor:
        """Return [N, K] uint8: 1 for each class that a row has."""
        values = table[self.column]
        unknown = pc.unique(pc.list_flatten(values)).to_pylist()
        if strange := [value for value in unknown if value not in self.classes]:
            position = next(index for index, cell in enumerate(values.to_pylist()) if strange[0] in cell)
            raise self.unknown_class(strange[0], table["_row"][position].as_py())
        return torch.from_numpy(label_matrix(values, self.classes))

    def answers(self, outputs: np.ndarray) -> list[dict[str, Any]]:
        outcome = Outcome(outputs, np.zeros(outputs.shape))
        return [
            {
                "prediction": [self.classes[k] for k in np.flatnonzero(chosen)],
                "probabilities": dict(zip(self.classes, map(float, chances))),
            }
            for chosen, chances in zip(outcome.chosen, outcome.probabilities)
        ]

    def mistake(self, outcome: Outcome, index: int) -> dict[str, Any]:
        truth, predicted = (
            [self.classes[k] for k in np.flatnonzero(labels[index])] for labels in (outcome.actual, outcome.chosen)
        )
        return {"target": truth, "prediction": predicted, "confidence": None, "loss": float(outcome.losses[index])}

    def chances(self, outputs: Tensor) -> Tensor:
        return outputs.sigmoid()

    def log_odds(self, chosen: int) -> Quantity:
        return lambda found: found[:, chosen]

    def members(self, truth: np.ndarray) -> np.ndarray:
        return truth.astype(bool).T


@dataclass(frozen=True, kw_only=True)
class NumberTarget(ColumnTarget):
    """A number for each row, standardised on the training split so that one learning rate fits all units."""

    mean: float
    std: float

    @property
    def outputs(self) -> int:
        return 1

    def encode(self, table: pa.Table) -> Tensor:
        """Return [N] float32 standardised numbers."""
        return torch.from_numpy(((table[self.column].to_numpy() - self.mean) / self.std).astype(np.float32))

    def decode(self, outputs: Tensor) -> np.ndarray:
        """Return standardised outputs [N, 1] as [N] numbers in the target's own unit."""
        return outputs.cpu().double().numpy().reshape(-1) * self.std + self.mean

    def truth(self, target: Tensor) -> np.ndarray:
        """Return [N] numbers in the target's own unit."""
        return target.cpu().numpy().astype(np.float64) * self.std + self.mean

    def statistic(self, prepared: Prepared, owner: str | None) -> Statistic:
        return Statistic(column=self.column, kind="mean and deviation", count=2)

    def answers(self, outputs: np.ndarray) -> list[dict[str, Any]]:
        return [{"prediction": float(value)} for value in outputs]

    def mistake(self, outcome: Outcome, index: int) -> dict[str, Any]:
        truth, predicted = float(outcome.target[index]), float(outcome.outputs[index])
        return {"target": truth, "prediction": predicted, "confidence": None, "loss": abs(truth - predicted)}

    def explained(self, outputs: Tensor, wanted: str | None) -> tuple[Quantity, list[str], list[str]]:
        answer = ["{}", f"{float(outputs.reshape(-1)[0]) * self.std + self.mean:.4g}"]
        what = ["the predicted {}", self.column]
        return (lambda found: found.reshape(-1) * self.std + self.mean), answer, what

    def followed(self, truth: np.ndarray, most: int) -> list[tuple[str, np.ndarray, Quantity]]:
        every = np.ones(len(truth), bool)
        return [(f"the predicted {self.column}", every, lambda found: found.reshape(-1) * self.std)]


@dataclass(frozen=True, kw_only=True)
class Target:
    """A kind of target: which column it is read from, how its encoder is fitted and loaded, what is minimised for it."""

    kind: TargetKind
    """The kind of column that data preparation looks for."""
    objective: str
    """The objective when the recipe names none, of a task without objectives of its own."""
    fit: Callable[[Prepared, Recipe | None], TargetEncoder]
    """(prepared data with a target, recipe, which may give public statistics) → the encoder; raises DataError."""
    load: Callable[[dict[str, Any]], TargetEncoder]
    """The encoder from its JSON."""


def _classes(prepared: Prepared) -> tuple[str, list[str]]:
    """Return the target column and its classes.

    Raises:
        DataError: there are fewer than two.
    """
    manifest = prepared.manifest
    classes = manifest.classes or []
    if len(classes) < 2:
        raise DataError(
            f"the target {manifest.target!r} has {len(classes)} class",
            file=manifest.source,
            found=", ".join(classes),
            expected="at least two classes",
            fix="name another column with data.target, or set data.labelled: false",
        )
    return manifest.target or "", classes


def _fit_class(prepared: Prepared, recipe: Recipe | None) -> ClassTarget:
    column, classes = _classes(prepared)
    return ClassTarget(column=column, classes=classes)


def _fit_labels(prepared: Prepared, recipe: Recipe | None) -> LabelsTarget:
    column, classes = _classes(prepared)
    return LabelsTarget(column=column, classes=classes)


def _fit_number(prepared: Prepared, recipe: Recipe | None) -> NumberTarget:
    """Standardise by the recipe's public mean and deviation, or by those of the training split.

    Raises:
        DataError: the number never changes.
    """
    name = prepared.manifest.target or ""
    column = prepared.manifest.column(name)
    if recipe is not None and (given := public_column(recipe, column)) is not None:
        means, stds = public_scaling(given, column)
        return NumberTarget(column=name, mean=means[0], std=stds[0])
    values = prepared.table("train", [name])[name].to_numpy()
    std = float(values.std())
    if not std > 0:
        raise DataError(
            f"the target {name!r} has the same value in every training row",
            file=prepared.manifest.source,
            found=values[0] if len(values) else "no rows",
            expected="numbers that differ",
            fix="name another column with data.target",
        )
    return NumberTarget(column=name, mean=float(values.mean()), std=std)


# Models that were saved when one class encoded all targets have these keys for each of them.
_SHARED_KEYS = {"mean", "std", "several"}


def _load(kind: type[ColumnTarget], value: dict[str, Any]) -> ColumnTarget:
    """Return an encoder from its JSON, without the keys that older models have for other targets."""
    known = {entry.name for entry in fields(kind)}
    return kind(**{name: entry for name, entry in value.items() if name in known or name not in _SHARED_KEYS})


CATEGORY = Target(kind="category", objective="cross_entropy", fit=_fit_class, load=partial(_load, ClassTarget))
LABELS = Target(kind="labels", objective="binary_cross_entropy", fit=_fit_labels, load=partial(_load, LabelsTarget))
NUMBER = Target(kind="number", objective="mse", fit=_fit_number, load=partial(_load, NumberTarget))


def index_of(wanted: str, names: Sequence[str], what: str) -> int:
    """Return the place of a name that was asked for with --target.

    Raises:
        DataError: there is none.
    """
    if wanted not in names:
        raise DataError(
            f"there is no {what} of this name",
            place="--target",
            found=wanted,
            expected=", ".join(names[:20]),
            fix="take one of these",
        )
    return names.index(wanted)
