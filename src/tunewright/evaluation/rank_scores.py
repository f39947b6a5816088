"""Combine several scores of the same candidates into one ranking."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

# What counts in the order. In benchmarks/choose_backbones.py neither weights that were learned from other tasks nor a mean with the other
# scores did better than luck allows: they are shown, and do not count. Where models were fine-tuned on a part of the rows, that alone
# orders them best: what counts otherwise only breaks ties.
JOINED = ("probe", "logme")
TIE = 1e-6
# Of values that cannot be told from one another by their spread.
SAME = 1e-9


def standardised(values: Sequence[float | None]) -> np.ndarray:
    """Return [C]: each candidate's score in standard deviations above the candidates' mean; 0 for one that has none."""
    known = np.array([value for value in values if value is not None], dtype=np.float64)
    spread = float(known.std()) if len(known) > 1 else 0.0
    if spread <= SAME * max(1.0, float(np.abs(known).max()) if len(known) else 1.0):
        return np.zeros(len(values))
    return np.array([0.0 if value is None else (value - known.mean()) / spread for value in values])


def combined(scores: Mapping[str, Sequence[float | None]], weights: Mapping[str, float] | None = None) -> np.ndarray:
    """Return [C]: the weighted mean of the standardised scores, the greater the better.

    Args:
        scores: by the name of the score, one for each candidate; None where it has none.
        weights: of the scores that count; None: "tuned" where there is such a score (who has none stands behind), else those that are
            JOINED, equally.
    """
    counts = weights or dict.fromkeys(JOINED, 1.0)
    total = sum(counts.values()) or 1.0
    mean = np.sum([weight / total * standardised(scores[name]) for name, weight in counts.items()], axis=0)
    tuned = scores.get("tuned", ())
    if weights is not None or all(value is None for value in tuned):
        return mean
    found = standardised(tuned)
    behind = np.array([value is None for value in tuned])
    found[behind] = found.min() - 1
    return found + TIE * mean


def weighted_tau(order: Sequence[float], reached: Sequence[float]) -> float:
    """Return how well an order agrees with what was reached: Kendall's τ in which the best count most (Vigna 2015; weights 1 /
    (rank + 1))."""
    from scipy.stats import weightedtau

    return float(weightedtau(np.asarray(order), np.asarray(reached)).statistic)
