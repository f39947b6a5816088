"""A scaling law of one's own: L(N, D) = E + A / N^α + B / D^β fitted to the losses of small trainings.

The mean Huber loss of log L is minimised, as log(exp(a − α log N) + exp(b − β log D) + exp(e)), from a grid of starts by L-BFGS
(Hoffmann et al. 2022, section 3.3, equation 3; δ = 1e-3). Intervals come from fits to points drawn again with replacement.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from tunewright.planning.scaling_laws import Law

DELTA = 1e-3
# Starting values of a, b, e, α and β: a coarser grid than the paper's, for there are far fewer points.
STARTS = ((0.0, 5.0, 10.0), (0.0, 5.0, 10.0), (-1.0, 0.5), (0.2, 0.6), (0.2, 0.6))
# With no more points than numbers that are fitted anything fits.
FEWEST = 8


@dataclass(frozen=True)
class Point:
    """The loss that a training came to."""

    parameters: float
    """Embeddings not counted."""
    tokens: float
    """Read in all."""
    loss: float
    """Nats a token, on texts that were not read."""


@dataclass(frozen=True, kw_only=True)
class Fit:
    """A law with its uncertainty."""

    law: Law
    laws: list[Law]
    """Those of the points drawn again."""
    error: float
    """The mean absolute error of the points' losses, nats a token."""

    def interval(self, name: str) -> tuple[float, float]:
        """95 % of the laws have the number of this name between these."""
        low, high = np.percentile([getattr(law, name) for law in self.laws], [2.5, 97.5])
        return float(low), float(high)


def fit_law(points: Sequence[Point], *, resamples: int = 100, seed: int = 0) -> Fit:
    """The law of these points.

    Raises:
        ValueError: there are fewer than `FEWEST`, or all have one size or one number of tokens.
    """
    if len(points) < FEWEST or any(
        len({getattr(point, key) for point in points}) < 2 for key in ("parameters", "tokens")
    ):
        raise ValueError(f"a law needs {FEWEST} points at least, of several sizes and several numbers of tokens")
    values = np.array([(point.parameters, point.tokens, point.loss) for point in points])
    best = min(
        (_minimised(values, np.array(start)) for start in itertools.product(*STARTS)), key=lambda found: found[1]
    )
    random = np.random.default_rng(seed)
    laws: list[Law] = []
    while len(laws) < resamples:
        drawn = values[random.integers(len(values), size=len(values))]
        if len(np.unique(drawn[:, 0])) > 1 and len(np.unique(drawn[:, 1])) > 1:
            laws.append(_law(_minimised(drawn, best[0])[0]))
    law = _law(best[0])
    errors = [abs(law.loss(point.parameters, point.tokens) - point.loss) for point in points]
    return Fit(law=law, laws=laws, error=float(np.mean(errors)))


def _minimised(values: np.ndarray, start: np.ndarray) -> tuple[np.ndarray, float]:
    """(a, b, e, α, β) from one start, and how badly they fit."""
    from scipy.optimize import minimize

    sizes, tokens, losses = np.log(values.T)

    def objective(x: np.ndarray) -> tuple[float, np.ndarray]:
        a, b, e, alpha, beta = x
        terms = np.stack([a - alpha * sizes, b - beta * tokens, np.full_like(sizes, e)])
        most = terms.max(axis=0)
        whole = most + np.log(np.exp(terms - most).sum(axis=0))
        apart = whole - losses
        small = np.abs(apart) <= DELTA
        cost = np.where(small, apart**2 / 2, DELTA * (np.abs(apart) - DELTA / 2))
        slope = np.clip(apart, -DELTA, DELTA) * np.exp(terms - whole)
        first, second, third = slope
        gradient = [first.sum(), second.sum(), third.sum(), -(first * sizes).sum(), -(second * tokens).sum()]
        # As sums are small numbers, the search would end too early.
        return cost.mean() / DELTA**2, np.array(gradient) / len(sizes) / DELTA**2

    bounds = [(-20, 40), (-20, 40), (-10, 3), (0.01, 2), (0.01, 2)]
    found = minimize(
        objective, start, jac=True, method="L-BFGS-B", bounds=bounds, options={"maxiter": 2000, "ftol": 1e-14}
    )
    return found.x, float(found.fun)


def _law(x: np.ndarray) -> Law:
    a, b, e, alpha, beta = map(float, x)
    return Law(
        name="fitted here",
        source="trainings of this recipe on this machine",
        irreducible=float(np.exp(e)),
        a=float(np.exp(a)),
        b=float(np.exp(b)),
        alpha=alpha,
        beta=beta,
    )
