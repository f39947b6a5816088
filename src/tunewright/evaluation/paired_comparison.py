"""Two models on the same test rows: the difference of each metric, with its interval, and whether it is real."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from tunewright.errors import UserError
from tunewright.evaluation.intervals import Difference, paired_bootstrap
from tunewright.evaluation.metrics import Outcome, get_metric


@dataclass(frozen=True, kw_only=True)
class Predictions:
    """A model's outputs on its test rows."""

    name: str
    data: str
    """The fingerprint of the prepared data: rows are the same only if this is."""
    kind: str
    rows: np.ndarray
    """[N] int64 numbers in the source."""
    target: np.ndarray
    outputs: np.ndarray

    @property
    def outcome(self) -> Outcome:
        return Outcome(self.outputs, self.target)


def compare_predictions(a: Predictions, b: Predictions, metric: str, *, resamples: int, seed: int = 0) -> Difference:
    """Return how much better A is than B by one metric.

    Raises:
        UserError: they were not measured on the same rows with the same targets.
    """
    same = a.kind == b.kind and np.array_equal(a.rows, b.rows) and np.array_equal(a.target, b.target)
    if not same:
        common = len(np.intersect1d(a.rows, b.rows))
        raise UserError(
            "the two results cannot be compared: they were not measured on the same rows",
            place=f"{a.name} and {b.name}",
            found=f"{len(a.rows):,} and {len(b.rows):,} test rows, {common:,} row numbers in common",
            expected="the same data, split and seed",
            fix="run both recipes with the same data block and the same seed",
        )
    if a.outputs.shape[1:] != b.outputs.shape[1:]:
        raise UserError(
            "the two models know different classes", place=f"{a.name} and {b.name}", fix="train both on the same target"
        )
    return paired_bootstrap(get_metric(metric, a.kind), a.outcome, b.outcome, resamples=resamples, seed=seed)
