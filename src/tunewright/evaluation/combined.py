"""Several scores of the same candidates joined into one order, by weights that were learned from tasks whose end is known."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

# The weight of each score, as `fit_weights` found it over all tasks of benchmarks/choose_backbones.py.
WEIGHTS: dict[str, float] = {"probe": 0.5, "neighbours": 0.1, "logme": 0.1, "h_score": 0.1, "prior": 0.2}
# Of values that cannot be told from one another by their spread.
SAME = 1e-9


def standardised(values: Sequence[float | None]) -> np.ndarray:
    """[C]: each candidate's score in standard deviations above the candidates' mean; 0 for one that has none."""
    known = np.array([value for value in values if value is not None], dtype=np.float64)
    spread = float(known.std()) if len(known) > 1 else 0.0
    if spread <= SAME * max(1.0, float(np.abs(known).max()) if len(known) else 1.0):
        return np.zeros(len(values))
    return np.array([0.0 if value is None else (value - known.mean()) / spread for value in values])


def combined(scores: Mapping[str, Sequence[float | None]], weights: Mapping[str, float] = WEIGHTS) -> np.ndarray:
    """[C]: the weighted mean of the standardised scores, the greater the better.

    Args:
        scores: by the name of the score, one for each candidate; None where it has none.
    """
    total = sum(weights[name] for name in scores) or 1.0
    return np.sum([weights[name] / total * standardised(values) for name, values in scores.items()], axis=0)


def fit_weights(tasks: Sequence[tuple[Mapping[str, Sequence[float | None]], Sequence[float]]]) -> dict[str, float]:
    """Non-negative weights, of sum 1, by which the scores foretell what fine-tuning reached, in least squares.

    Args:
        tasks: for each the candidates' scores, as for `combined`, and what each of them reached.
    """
    from scipy.optimize import nnls

    names = list(tasks[0][0])
    rows = np.concatenate([np.stack([standardised(scores[name]) for name in names], 1) for scores, _ in tasks])
    reached = np.concatenate([standardised(list(values)) for _, values in tasks])
    found, _ = nnls(rows, reached)
    return dict(zip(names, (found / (found.sum() or 1.0)).tolist()))


def weighted_tau(order: Sequence[float], reached: Sequence[float]) -> float:
    """How well an order agrees with what was reached: Kendall's τ in which the best count most (Vigna 2015; weights 1 / (rank + 1))."""
    from scipy.stats import weightedtau

    return float(weightedtau(np.asarray(order), np.asarray(reached)).statistic)
