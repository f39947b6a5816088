"""How much privacy training costs: ε for a δ, from the noise, the share drawn at a step, and the number of steps.

(ε, δ)-differential privacy for adding or taking away one unit: whatever anybody may conclude from the model, its probability is
at most e^ε times what it would be without that unit, plus δ (Dwork and Roth 2014, definition 2.4). The mathematics is Opacus's.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from tunewright.errors import RecipeError

# The orders at which Rényi divergences are computed; the largest are for very small ε.
ORDERS = [1 + step / 10 for step in range(1, 100)] + list(range(12, 64)) + [64, 80, 96, 128, 192, 256, 512, 1024]
# σ is found to this fraction of itself, from above; more than the largest one drowns everything.
PRECISE, LARGEST = 1e-4, 1e4


@dataclass(frozen=True, kw_only=True)
class Account:
    """Steps of the Gaussian mechanism on units that are drawn by Poisson sampling.

    noise_multiplier: σ, the noise's standard deviation as a multiple of the largest norm that a unit's gradient may have.
    rate: the probability of a unit to be in a step.
    """

    noise_multiplier: float
    rate: float
    delta: float

    @cached_property
    def _step(self) -> np.ndarray:
        from opacus.accountants.analysis.rdp import compute_rdp

        return np.asarray(compute_rdp(q=self.rate, noise_multiplier=self.noise_multiplier, steps=1, orders=ORDERS))

    def epsilon(self, steps: int) -> float:
        """ε after so many steps, by Rényi differential privacy (Mironov 2017; Mironov, Talwar and Zhang 2019; to ε by Balle et
        al. 2020, theorem 21)."""
        if steps == 0:
            return 0.0
        orders = np.asarray(ORDERS)
        found = (
            self._step * steps - (np.log(self.delta) + np.log(orders)) / (orders - 1) + np.log((orders - 1) / orders)
        )
        return float(max(0.0, np.nanmin(found)))

    def epsilon_by_convolution(self, steps: int) -> float:
        """The same from the distribution of the privacy loss itself, convolved numerically (Gopi, Lee and Wutschitz 2021): an
        independent check, and nearly always the smaller of the two. An upper bound, its numerical error included."""
        if steps == 0:
            return 0.0
        from opacus.accountants import PRVAccountant

        accountant = PRVAccountant()
        accountant.history = [(self.noise_multiplier, self.rate, steps)]
        with warnings.catch_warnings(), np.errstate(divide="ignore"):  # log 0 where every unit is in every step
            # It bounds its domain by Rényi divergences of few orders, and says so; the bound need not be tight.
            warnings.filterwarnings("ignore", message="Optimal order is the")
            return float(accountant.get_epsilon(self.delta))


def noise_for(epsilon: float, *, delta: float, rate: float, steps: int) -> float:
    """The smallest noise multiplier with which so many steps cost at most ε.

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
