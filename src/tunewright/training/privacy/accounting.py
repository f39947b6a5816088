"""How much privacy training costs: ε for a δ, from the noise, the share drawn at a step, and the number of steps.

(ε, δ)-differential privacy for adding or taking away one unit: whatever anybody may conclude from the model, its probability is
at most e^ε times what it would be without that unit, plus δ (Dwork and Roth 2014, definition 2.4). The mathematics is Opacus's.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from tunewright.errors import RecipeError

# The orders at which Rényi divergences are computed; the largest are for very small ε.
ORDERS = [1 + step / 10 for step in range(1, 100)] + list(range(12, 64)) + [64, 80, 96, 128, 192, 256, 512, 1024]
# σ is found to this fraction of itself, from above; more than the largest one drowns everything.
PRECISE, LARGEST = 1e-4, 1e4


@dataclass(frozen=True, kw_only=True)
class Steps:
    """Equal steps of the Gaussian mechanism on units that are drawn by Poisson sampling.

    noise_multiplier: σ, the noise's standard deviation as a multiple of the largest norm that a unit's gradient may have.
    rate: the probability of a unit to be in a step.
    """

    noise_multiplier: float
    rate: float
    steps: int


@dataclass(frozen=True, kw_only=True)
class Account:
    """A mechanism of which any number of steps is taken, for one δ; its fields are those of `Steps`."""

    noise_multiplier: float
    rate: float
    delta: float

    @cached_property
    def _step(self) -> np.ndarray:
        return divergences(self.noise_multiplier, self.rate)

    def epsilon(self, steps: int) -> float:
        """ε after so many steps, by Rényi differential privacy."""
        return 0.0 if steps == 0 else smallest_epsilon(self._step * steps, self.delta)

    def epsilon_by_convolution(self, steps: int) -> float:
        """Return the same by `convolved_epsilon`."""
        taken = Steps(noise_multiplier=self.noise_multiplier, rate=self.rate, steps=steps)
        return convolved_epsilon([taken], self.delta)


def divergences(noise_multiplier: float, rate: float) -> np.ndarray:
    """Return the Rényi divergence of one step at each of ORDERS (Mironov, Talwar and Zhang 2019)."""
    from opacus.accountants.analysis.rdp import compute_rdp

    return np.asarray(compute_rdp(q=rate, noise_multiplier=noise_multiplier, steps=1, orders=ORDERS))


def smallest_epsilon(found: np.ndarray, delta: float) -> float:
    """Return the ε that divergences at ORDERS allow (Mironov 2017; by Balle et al. 2020, theorem 21)."""
    orders = np.asarray(ORDERS)
    bounds = found - (np.log(delta) + np.log(orders)) / (orders - 1) + np.log((orders - 1) / orders)
    return float(max(0.0, np.nanmin(bounds)))


def composed_epsilon(history: Sequence[Steps], delta: float) -> float:
    """ε of several mechanisms on the same units, each of its own noise and rate: Rényi divergences add up (Mironov 2017,
    proposition 1)."""
    taken = [part for part in history if part.steps]
    if not taken:
        return 0.0
    total = np.zeros(len(ORDERS))
    for part in taken:
        total = total + divergences(part.noise_multiplier, part.rate) * part.steps
    return smallest_epsilon(total, delta)


def convolved_epsilon(history: Sequence[Steps], delta: float) -> float:
    """Return the same from the distribution of the privacy loss itself, convolved numerically (Gopi, Lee and Wutschitz 2021): an
    independent check, and nearly always the smaller of the two. An upper bound, its numerical error included."""
    taken = [part for part in history if part.steps]
    if not taken:
        return 0.0
    from opacus.accountants import PRVAccountant

    accountant = PRVAccountant()
    accountant.history = [(part.noise_multiplier, part.rate, part.steps) for part in taken]
    with warnings.catch_warnings(), np.errstate(divide="ignore"):  # log 0 where every unit is in every step
        # It bounds its domain by Rényi divergences of few orders, and says so; the bound need not be tight.
        warnings.filterwarnings("ignore", message="Optimal order is the")
        return float(accountant.get_epsilon(delta))


def convolved_or_none(history: Sequence[Steps], delta: float) -> float | None:
    """`convolved_epsilon`; None where its numerics give up."""
    try:
        return convolved_epsilon(history, delta)
    except (RuntimeError, ValueError, MemoryError):
        return None


def noise_for(epsilon: float, *, delta: float, rate: float, steps: int) -> float:
    """Return the smallest noise multiplier with which so many steps cost at most ε.

    Raises:
        RecipeError: no noise is enough.
    """

    def costs(noise: float) -> float:
        return Account(noise_multiplier=noise, rate=rate, delta=delta).epsilon(steps)

    low, high = 0.0, 1.0
    while costs(high) > epsilon:
        low, high = high, 2 * high
        if high > LARGEST:
            raise RecipeError(
                "no noise is enough for so much privacy",
                place="privacy.epsilon",
                found=epsilon,
                expected=f"at least {costs(LARGEST):.3g} for {steps:,} steps and δ = {delta:.3g}",
                fix="fewer epochs, a larger batch, or a larger privacy.delta",
            )
    while high - low > PRECISE * high:
        middle = (low + high) / 2
        low, high = (low, middle) if costs(middle) <= epsilon else (middle, high)
    return high


def usual_delta(units: int) -> float:
    """N^−1.1: well below 1/N, at which publishing a unit of the N whole would count as private (Ponomareva et al. 2023, "How to
    DP-fy ML", section 5.3)."""
    return float(max(units, 2) ** -1.1)
