"""How a network is measured and used: the one interface of all tasks, and its form for tasks with a target column."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import replace
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa
import torch

from tunewright.data.prepared import Prepared
from tunewright.data.source import ROW
from tunewright.errors import DataError
from tunewright.evaluation.baselines import Baseline, baselines, sample_rows
from tunewright.evaluation.calibration import calibrate
from tunewright.evaluation.label_thresholds import by_label, tuned_thresholds
from tunewright.evaluation.metrics import Outcome
from tunewright.evaluation.metrics.classification import CLASSES, LABELS
from tunewright.evaluation.metrics.regression import NUMBERS
from tunewright.evaluation.outputs import run_network
from tunewright.evaluation.slices import confusion, worst
from tunewright.models.core.network import Network
from tunewright.runs.summary.evaluation import Mistake, TaskFindings
from tunewright.tasks.base.encoders import Encoders
from tunewright.tasks.base.targets import ColumnTarget

# For each row (or text, or user): outputs [N, K] or [N] and targets [N] or [N, K], as the metrics of a kind read them.
Measured = tuple[np.ndarray, np.ndarray]
MISTAKES = 24


class Evaluation(ABC):
    """How the networks of a task are measured and asked.

    Encoders are always the task's own; tables have the columns that they read, and `_row`.
    """

    kind: str
    """What its outputs and targets are: the metrics of this kind measure them."""
    by_batch: ClassVar[bool] = False
    """Whether the task's metrics follow from the network's outputs for the batches of the validation split, decoded by the
    target: then each epoch measures them together with the loss."""
    compares_with_start: ClassVar[bool] = True
    """Whether the network that a stage starts from can do the task already, and is measured as a baseline."""
    select: ClassVar[str | None] = None
    """The metric that is measured on the whole validation split after each epoch and selects the best weights; None: the loss
    selects, or a metric by batch."""
    zero_shot: ClassVar[str | None] = None
    """The metric that compares models before they are trained for the task, whatever their tokens are; None: there is none."""

    @abstractmethod
    def outputs(self, network: Network, before: Network | None, preprocessor: Encoders, table: pa.Table) -> Measured:
        """Return what the metrics read of the rows of a table.

        Args:
            before: the network that the stage started with; None: it began with random weights, or nothing asks for it.
        """

    @abstractmethod
    def predictions(self, network: Network, preprocessor: Encoders, table: pa.Table) -> list[dict[str, Any]]:
        """Return what `predict` prints for each row."""

    def baselines(self, preprocessor: Encoders, prepared: Prepared, table: pa.Table, seed: int) -> list[Baseline]:
        """Return what needs no network, fitted on the training split and measured on the table."""
        return []

    def facts(
        self, network: Network, preprocessor: Encoders, prepared: Prepared, table: pa.Table, outcome: Outcome
    ) -> TaskFindings:
        """Return what else is measured on the rows of a table."""
        return TaskFindings()

    def units(self, preprocessor: Encoders, table: pa.Table) -> np.ndarray:
        """Return the numbers [N] of what is measured: rows, or users."""
        return np.asarray(table[ROW])

    def untrained(self, network: Network, preprocessor: Encoders, table: pa.Table) -> Measured:
        """Return what the metric `zero_shot` reads."""
        return self.outputs(network, None, preprocessor, table)

    def sample(self, network: Network, preprocessor: Encoders) -> str | None:
        """Return what the network makes by itself, shown after each epoch; None: nothing."""
        return None

    def sampled(self, preprocessor: Encoders, prepared: Prepared, seed: int) -> pa.Table:
        """Return the training rows that baselines are fitted on."""
        return prepared.chosen("train", sample_rows(prepared.rows("train"), seed, preprocessor.inputs.plain_rows))


class TargetEvaluation(Evaluation):
    """Answers are held against a target column."""

    by_batch = True
    compares_with_start = False

    def outputs(self, network: Network, before: Network | None, preprocessor: Encoders, table: pa.Table) -> Measured:
        target = _target(preprocessor)
        encoded = target.encode(table)
        found = run_network(network, preprocessor.inputs.examples(table, encoded))
        return target.decode(found), target.truth(encoded)

    def predictions(self, network: Network, preprocessor: Encoders, table: pa.Table) -> list[dict[str, Any]]:
        """Return {"prediction": …} for each row, with what else the target says of it.

        Raises:
            DataError: an output is not finite.
        """
        target = _target(preprocessor)
        outputs = target.decode(run_network(network, preprocessor.inputs.examples(table, None)))
        _require_finite(outputs, table)
        return target.answers(outputs)

    def baselines(self, preprocessor: Encoders, prepared: Prepared, table: pa.Table, seed: int) -> list[Baseline]:
        target, inputs = _target(preprocessor), preprocessor.inputs
        train = prepared.table("train")
        sampled = train.take(pa.array(sample_rows(prepared.rows("train"), seed, inputs.plain_rows)))
        plain_train, plain_test = inputs.plain(sampled, table)
        whole, some = (torch.from_numpy(target.truth(target.encode(rows))) for rows in (train, sampled))
        return baselines(
            self.kind, whole, plain_train, some, plain_test, outputs=target.outputs, name=inputs.plain_name
        )

    def facts(
        self, network: Network, preprocessor: Encoders, prepared: Prepared, table: pa.Table, outcome: Outcome
    ) -> TaskFindings:
        target = _target(preprocessor)
        mistakes: list[Mistake] = []
        for index in worst(outcome, MISTAKES):
            row, shown = table[ROW][index].as_py(), preprocessor.inputs.show(table, index)
            mistakes.append(
                Mistake(row=row, **target.mistake(outcome, index), image=shown.get("image"), input=shown.get("input"))
            )
        return TaskFindings(mistakes=mistakes)

    def validated(self, network: Network, preprocessor: Encoders, prepared: Prepared) -> Measured | None:
        """Return what the metrics read of the validation split; None: it is empty."""
        return self.outputs(network, None, preprocessor, prepared.table("valid")) if prepared.rows("valid") else None


class CategoryEvaluation(TargetEvaluation):
    """One class for each row."""

    kind = CLASSES

    def facts(
        self, network: Network, preprocessor: Encoders, prepared: Prepared, table: pa.Table, outcome: Outcome
    ) -> TaskFindings:
        """Return also the confusion, and the calibration by a temperature that is fitted on the validation split."""
        validated = self.validated(network, preprocessor, prepared)
        return replace(
            super().facts(network, preprocessor, prepared, table, outcome),
            confusion=confusion(outcome, _target(preprocessor).classes or []),
            calibration=None if validated is None else calibrate(*validated, outcome.outputs, outcome.target),
        )


class LabelsEvaluation(TargetEvaluation):
    """Any number of classes for each row."""

    kind = LABELS

    def facts(
        self, network: Network, preprocessor: Encoders, prepared: Prepared, table: pa.Table, outcome: Outcome
    ) -> TaskFindings:
        """Return also the metrics of each label, and the effect of thresholds that are chosen on the validation split."""
        classes = _target(preprocessor).classes or []
        validated = self.validated(network, preprocessor, prepared)
        return replace(
            super().facts(network, preprocessor, prepared, table, outcome),
            labels=by_label(outcome, classes),
            thresholds=None if validated is None else tuned_thresholds(*validated, outcome, classes),
        )


class NumberEvaluation(TargetEvaluation):
    """A number for each row."""

    kind = NUMBERS


def _target(preprocessor: Encoders) -> ColumnTarget:
    target = preprocessor.column_target
    assert target is not None
    return target


def _require_finite(outputs: np.ndarray, table: pa.Table) -> None:
    good = np.isfinite(outputs.reshape(len(outputs), -1)).all(axis=1)
    if not good.all():
        raise DataError(
            "the network's output is not finite",
            place=f"row {table[ROW][int(np.argmin(good))].as_py()}",
            expected="an input like those that the network was trained on",
            fix="correct the row, or remove it",
        )
