"""Find where a model is good and where bad: by the values of a column, by confusion, by its worst mistakes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from tunewright.evaluation.intervals import bootstrap
from tunewright.evaluation.metrics import Metric, Outcome
from tunewright.runs.summary.evaluation import ConfusionSummary, Slice

# Fewer rows say little: the slice is shown with a flag.
SMALL = 30
MOST_VALUES = 20


def slice_by(
    column: str, values: Sequence[Any], metrics: list[Metric], outcome: Outcome, *, resamples: int, seed: int
) -> list[Slice]:
    """Return the metrics for each value of a column; numbers with many values are cut into quarters.

    Rows with a missing value, and values beyond the twenty commonest, get a slice of their own.
    """
    labels = _labels(values)
    names, counts = np.unique(labels, return_counts=True)
    kept = set(names[np.argsort(-counts, kind="stable")][:MOST_VALUES])
    labels = np.array([label if label in kept else "all others" for label in labels], dtype=object)
    found: list[Slice] = []
    for name in dict.fromkeys(sorted(labels)):
        chosen = labels == name
        groups = None if outcome.groups is None else outcome.groups[chosen]
        part = Outcome(outcome.outputs[chosen], outcome.target[chosen], groups)
        estimates = bootstrap(metrics, part, resamples=resamples, seed=seed)
        found.append(Slice(column=column, value=str(name), rows=len(part), small=len(part) < SMALL, metrics=estimates))
    return found


def confusion(outcome: Outcome, classes: list[str]) -> ConfusionSummary:
    """Count the rows by true and predicted class."""
    size = len(classes)
    counts = np.bincount(outcome.target * size + outcome.predicted, minlength=size * size).reshape(size, size)
    return ConfusionSummary(labels=classes, counts=counts.tolist())


def worst(outcome: Outcome, count: int) -> list[int]:
    """Return the positions of the wrong predictions with the largest loss; of a regression those with the largest error."""
    order = np.argsort(-outcome.losses, kind="stable")
    if outcome.outputs.ndim == 1:
        return order[:count].tolist()
    return [int(index) for index in order if not outcome.correct[index]][:count]


def _labels(values: Sequence[Any]) -> np.ndarray:
    numbers = [value for value in values if isinstance(value, float | int) and not isinstance(value, bool)]
    if numbers and len(set(numbers)) > MOST_VALUES:
        edges = np.quantile(numbers, [0, 0.25, 0.5, 0.75, 1])
        parts = [f"{low:.4g} to {high:.4g}" for low, high in zip(edges, edges[1:])]
        return np.array(
            [
                "missing" if value is None else parts[min(3, int(np.searchsorted(edges[1:-1], value, side="right")))]
                for value in values
            ],
            dtype=object,
        )
    return np.array(["missing" if value is None else str(value) for value in values], dtype=object)
