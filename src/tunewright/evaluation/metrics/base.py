"""What a metric is: a formula that takes the examples with weights.

The weights are how often an example was drawn in a bootstrap resample, so one matrix product measures a thousand resamples. What an
example, its outputs and its target are depends on the kind; each module of this package says it for its own.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from tunewright.runs.summary.facts import MetricFacts, Style, Title

# What the outputs and targets of a task are: "classification", "regression", … A metric is for some kinds, a task has one.
Kind = str


class Outcome:
    """Outputs and targets of N examples, with what several metrics need computed once.

    With several labels an example, a label is predicted when its probability is above 1/2, its logit above 0.
    """

    def __init__(self, outputs: np.ndarray, target: np.ndarray, groups: np.ndarray | None = None) -> None:
        self.outputs = np.asarray(outputs, dtype=np.float64)
        self.target = np.asarray(target)
        # [N]: whose each example is, such as a user; None: examples are not grouped.
        self.groups = groups
        if len(self.outputs) != len(self.target):
            raise ValueError(f"{len(self.outputs)} outputs for {len(self.target)} targets")
        if np.isnan(self.outputs).any():
            raise ValueError("an output is not a number")

    def __len__(self) -> int:
        return len(self.target)

    @property
    def several(self) -> bool:
        """Whether an example has any number of labels."""
        return self.target.ndim == 2

    @cached_property
    def log_probabilities(self) -> np.ndarray:
        """[N, K] log softmax of the logits; log sigmoid of each where there are several labels."""
        if self.several:
            return -np.logaddexp(0, -self.outputs)
        shifted = self.outputs - self.outputs.max(1, keepdims=True)
        return shifted - np.log(np.exp(shifted).sum(1, keepdims=True))

    @cached_property
    def probabilities(self) -> np.ndarray:
        return np.exp(self.log_probabilities)

    @cached_property
    def predicted(self) -> np.ndarray:
        """[N] the class with the largest logit."""
        return self.outputs.argmax(1)

    @cached_property
    def actual(self) -> np.ndarray:
        """[N, K] of 0 and 1: the classes that an example has."""
        if self.several:
            return self.target.astype(np.float64)
        return (self.target[:, None] == np.arange(self.outputs.shape[1])).astype(np.float64)

    @cached_property
    def chosen(self) -> np.ndarray:
        """[N, K] of 0 and 1: the classes that are predicted."""
        if self.several:
            return (self.outputs > 0).astype(np.float64)
        return (self.predicted[:, None] == np.arange(self.outputs.shape[1])).astype(np.float64)

    @cached_property
    def correct(self) -> np.ndarray:
        """[N]: 1 where the class, or the whole set of labels, is right."""
        if self.several:
            return (self.actual == self.chosen).all(1).astype(np.float64)
        return (self.predicted == self.target).astype(np.float64)

    @cached_property
    def losses(self) -> np.ndarray:
        """[N]: −log p of the right class; the mean over labels of the binary −log p; |error| of a regression."""
        if self.outputs.ndim == 1:
            return np.abs(self.outputs - self.target)
        if self.several:
            return (np.logaddexp(0, self.outputs) - self.actual * self.outputs).mean(1)
        return -self.log_probabilities[np.arange(len(self)), self.target]


# Weights [R, N] to values [R]; NaN where the metric has no value.
Formula = Callable[[Outcome, np.ndarray], np.ndarray]


@dataclass(frozen=True, kw_only=True)
class Metric:
    """A metric by name."""

    name: str
    title: Title
    kinds: tuple[Kind, ...]
    """The kinds of outputs and targets that it is for."""
    greater_is_better: bool
    formula: Formula
    style: Style = "number"
    hub_name: str | None = None
    """Its name on the Hugging Face hub, where that is another one."""

    def value(self, outputs: np.ndarray, target: np.ndarray) -> float:
        """Return the metric on all examples, each counted once; NaN where it has no value."""
        outcome = Outcome(outputs, target)
        return float(self.formula(outcome, np.ones((1, len(outcome))))[0])

    @property
    def facts(self) -> MetricFacts:
        """What a report needs to know of it."""
        return MetricFacts(
            name=self.name,
            title=self.title,
            greater_is_better=self.greater_is_better,
            style=self.style,
            hub_name=self.hub_name or self.name,
        )


def weighted_mean(values: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Return the mean of values [N] under each of the weights [R, N]: [R]."""
    return weights @ values / weights.sum(1)


def ratio(part: np.ndarray, whole: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Return the sum of `part` [N] over that of `whole` [N] under each of the weights [R, N]: [R]; NaN where it is 0 / 0."""
    with np.errstate(invalid="ignore", divide="ignore"):
        return weights @ part / (weights @ whole)
