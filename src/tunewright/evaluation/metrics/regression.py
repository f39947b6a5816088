"""Metrics of numbers: predictions [N] and targets [N]."""

from __future__ import annotations

import numpy as np

from tunewright.evaluation.metrics.base import Metric, Outcome, weighted_mean
from tunewright.runs.summary.facts import Title

NUMBERS = "regression"


def mae(outcome: Outcome, weights: np.ndarray) -> np.ndarray:
    """Mean absolute error, in the target's unit."""
    return weighted_mean(np.abs(outcome.outputs - outcome.target), weights)


def rmse(outcome: Outcome, weights: np.ndarray) -> np.ndarray:
    """Root of the mean squared error, in the target's unit."""
    return np.sqrt(weighted_mean(np.square(outcome.outputs - outcome.target), weights))


def r2(outcome: Outcome, weights: np.ndarray) -> np.ndarray:
    """1 − Σ(y − ŷ)² / Σ(y − ȳ)²; no value where the target is constant."""
    total = weights.sum(1)
    # Around the overall mean, so that large offsets do not cost digits.
    centred = outcome.target - outcome.target.mean()
    spread = weights @ np.square(centred) - np.square(weights @ centred) / total
    errors = weights @ np.square(outcome.outputs - outcome.target)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(spread > 1e-12 * total, 1 - errors / spread, np.nan)


MAE = Metric(
    name="mae",
    title=Title(en="mean absolute error", zh="平均绝对误差"),
    kinds=(NUMBERS,),
    greater_is_better=False,
    formula=mae,
    style="amount",
)
RMSE = Metric(
    name="rmse",
    title=Title(en="root mean squared error", zh="均方根误差"),
    kinds=(NUMBERS,),
    greater_is_better=False,
    formula=rmse,
    style="amount",
)
R2 = Metric(
    name="r2", title=Title(en="R²", zh="R²"), kinds=(NUMBERS,), greater_is_better=True, formula=r2, hub_name="r_squared"
)
