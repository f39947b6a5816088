"""Measure what a model reveals about its training data: membership attacks, exposure, and a lower bound of ε."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from tunewright.random import mix

LEVEL = 0.95
RESAMPLES = 1000
# False positive rates at which attacks are judged: false accusations matter more than members found (Carlini et al. 2022).
FALSE_ALARMS = (0.01, 0.001)


@dataclass(frozen=True, kw_only=True)
class Attack:
    """How well scores separate members of the training data from others; larger scores mean a member."""

    auc: float
    """The probability that a member's score is above another's; 0.5: the attack is no better than chance."""
    low: float
    high: float
    found: dict[str, float | None]
    """True positive rate by false positive rate; None where there are too few others to estimate it."""
    members: int
    others: int


def attack(members: np.ndarray, others: np.ndarray, *, seed: int = 0) -> Attack:
    """Return the AUC with a bootstrap interval, and true positive rates at low false positive rates (Carlini et al. 2022, "Membership inference
    attacks from first principles", section III).

    Args:
        members: [M] scores of rows that were trained on.
        others: [N] scores of rows that were not.
    """
    generator = np.random.Generator(np.random.Philox(key=mix(seed, "membership")))
    drawn = [
        _auc(generator.choice(members, len(members)), generator.choice(others, len(others))) for _ in range(RESAMPLES)
    ]
    low, high = np.quantile(drawn, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    found = {
        f"{rate:g}": float(np.mean(members > np.quantile(others, 1 - rate, method="higher")))
        if len(others) * rate >= 1
        else None
        for rate in FALSE_ALARMS
    }
    return Attack(
        auc=_auc(members, others),
        low=float(low),
        high=float(high),
        found=found,
        members=len(members),
        others=len(others),
    )


def _auc(members: np.ndarray, others: np.ndarray) -> float:
    from scipy.stats import rankdata

    ranks = rankdata(np.concatenate([members, others]))[: len(members)].sum()
    return float((ranks - len(members) * (len(members) + 1) / 2) / (len(members) * len(others)))


def likelihood_ratios(scores: np.ndarray, references: np.ndarray, inside: np.ndarray) -> np.ndarray:
    """Return [N]: how much likelier each row's score is if the row was trained on (Carlini et al. 2022, section V, with one
    deviation for all rows, as for few reference models).

    Args:
        scores: [N] of the model in question.
        references: [K, N] of models of the same recipe.
        inside: [K, N]: which of them had the row.
    """
    mean_in = _means(references, inside, other=references.mean(0))
    mean_out = _means(references, ~inside, other=references.mean(0))
    deviation_in = _deviation(references, inside, mean_in)
    deviation_out = _deviation(references, ~inside, mean_out)
    likelihood_in = -(((scores - mean_in) / deviation_in) ** 2) / 2 - math.log(deviation_in)
    likelihood_out = -(((scores - mean_out) / deviation_out) ** 2) / 2 - math.log(deviation_out)
    return likelihood_in - likelihood_out


def _means(values: np.ndarray, chosen: np.ndarray, other: np.ndarray) -> np.ndarray:
    count = chosen.sum(0)
    return np.where(count > 0, (values * chosen).sum(0) / np.maximum(count, 1), other)


def _deviation(values: np.ndarray, chosen: np.ndarray, means: np.ndarray) -> float:
    squares = ((values - means) ** 2 * chosen).sum()
    free = max(1, chosen.sum() - (chosen.sum(0) > 0).sum())
    return max(float(np.sqrt(squares / free)), 1e-6)


def exposure(loss: float, others: np.ndarray) -> float:
    """log₂ of how many random secrets there are for each that the model finds likelier than the one it read (Carlini et al. 2019,
    "The secret sharer", section 4.2, by sampling). At most log₂(len(others) + 1); about 1 on average where nothing is memorised.

    Args:
        loss: of the secret that was in the training data.
        others: [R] losses of secrets that were not.
    """
    return math.log2(len(others) + 1) - math.log2(1 + int((others < loss).sum()))


def audited_epsilon(guesses: int, right: int, rows: int, delta: float) -> float:
    """Return the ε that a training surely exceeds, with 95 % certainty, where so many guesses about which rows were in were right
    (Steinke, Nasr and Jagielski 2023, "Privacy auditing with one (1) training run", theorem 5.2 and appendix D).

    Args:
        rows: how many rows were included or excluded at random.
    """
    low, high = 0.0, 1.0
    while _chance(guesses, right, rows, high, delta) < 1 - LEVEL:
        high += 1
    for _ in range(30):
        middle = (low + high) / 2
        low, high = (middle, high) if _chance(guesses, right, rows, middle, delta) < 1 - LEVEL else (low, middle)
    return low


def _chance(guesses: int, right: int, rows: int, epsilon: float, delta: float) -> float:
    """Return the probability of so many right guesses or more, at most, if the training is (ε, δ)-private."""
    from scipy.stats import binom

    accuracy = 1 / (1 + math.exp(-epsilon))
    beta = binom.sf(right - 1, guesses, accuracy)
    masses = np.cumsum(binom.pmf(right - np.arange(1, right + 1), guesses, accuracy))
    alpha = float(np.max(masses / np.arange(1, right + 1), initial=0.0))
    return float(min(1.0, beta + 2 * rows * delta * alpha))
