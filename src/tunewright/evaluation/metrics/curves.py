"""Areas under curves of binary scores, under bootstrap weights."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from tunewright.evaluation.metrics.base import Outcome


def over_classes(outcome: Outcome, weights: np.ndarray, binary: Callable[..., np.ndarray]) -> np.ndarray:
    logits = outcome.outputs
    if logits.shape[1] == 2 and not outcome.several:
        return binary(logits[:, 1] - logits[:, 0], outcome.target == 1, weights)
    scores = logits if outcome.several else outcome.log_probabilities
    each = [binary(scores[:, k], outcome.actual[:, k] == 1, weights) for k in range(logits.shape[1])]
    # A class that is absent from a resample has no curve there; where none has one, there is no value.
    stacked = np.stack(each)
    present = np.isfinite(stacked)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(present, stacked, 0.0).sum(0) / present.sum(0)


def roc_area(scores: np.ndarray, positive: np.ndarray, weights: np.ndarray) -> np.ndarray:
    positives, negatives = _ranked(scores, positive, weights)
    below = np.cumsum(negatives, axis=1) - negatives / 2
    pairs = positives.sum(1) * negatives.sum(1)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(pairs > 0, (positives * below).sum(1) / pairs, np.nan)


def average_precision(scores: np.ndarray, positive: np.ndarray, weights: np.ndarray) -> np.ndarray:
    positives, negatives = _ranked(scores, positive, weights)
    positives, negatives = positives[:, ::-1], negatives[:, ::-1]
    found = np.cumsum(positives, axis=1)
    drawn = found + np.cumsum(negatives, axis=1)
    total = positives.sum(1)
    with np.errstate(invalid="ignore", divide="ignore"):
        precision = np.where(drawn > 0, found / drawn, 0.0)
        return np.where(total > 0, (positives * precision).sum(1) / total, np.nan)


def _ranked(scores: np.ndarray, positive: np.ndarray, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Weights of positives and negatives [R, G] at each different score, in rising order."""
    order = np.argsort(scores, kind="stable")
    starts = np.flatnonzero(np.r_[True, np.diff(scores[order]) > 0])
    ordered = weights[:, order]
    positives = np.add.reduceat(ordered * positive[order], starts, axis=1)
    return positives, np.add.reduceat(ordered, starts, axis=1) - positives
