"""Does a confidence of 90 % mean nine in ten? Temperature scaling, and the bins of the reliability diagram."""

from __future__ import annotations

import numpy as np

from tunewright.evaluation.metrics import Outcome
from tunewright.evaluation.metrics.classification import ECE, ECE_BINS, LOG_LOSS, bins
from tunewright.runs.summary.evaluation import CalibrationSummary, ReliabilityBin

LOWEST, HIGHEST = 0.05, 20.0


def fit_temperature(logits: np.ndarray, target: np.ndarray) -> float:
    """Return the T that minimises the log loss of logits / T on validation data (Guo et al. 2017, section 4.2).

    The loss is convex in 1/T; a golden-section search over log T finds the minimum to a relative 1e-5.
    """
    golden = (5**0.5 - 1) / 2
    low, high = np.log(LOWEST), np.log(HIGHEST)

    def loss(log_temperature: float) -> float:
        return LOG_LOSS.value(logits / np.exp(log_temperature), target)

    left, right = high - golden * (high - low), low + golden * (high - low)
    at_left, at_right = loss(left), loss(right)
    while high - low > 1e-5:
        if at_left <= at_right:
            high, right, at_right = right, left, at_left
            left = high - golden * (high - low)
            at_left = loss(left)
        else:
            low, left, at_left = left, right, at_right
            right = low + golden * (high - low)
            at_right = loss(right)
    return float(np.exp((low + high) / 2))


def reliability(logits: np.ndarray, target: np.ndarray) -> list[ReliabilityBin]:
    """Return the bins of confidence that hold examples."""
    outcome = Outcome(logits, target)
    member, confidence = bins(outcome)
    rows = member.sum(0)
    return [
        ReliabilityBin(
            low=index / ECE_BINS,
            high=(index + 1) / ECE_BINS,
            rows=int(rows[index]),
            confidence=float(confidence @ member[:, index] / rows[index]),
            accuracy=float(outcome.correct @ member[:, index] / rows[index]),
        )
        for index in range(ECE_BINS)
        if rows[index]
    ]


def calibrate(
    valid_logits: np.ndarray, valid_target: np.ndarray, test_logits: np.ndarray, test_target: np.ndarray
) -> CalibrationSummary:
    """Fit the temperature on validation rows and measure its effect on test rows."""
    temperature = fit_temperature(valid_logits, valid_target)
    scaled = test_logits / temperature
    return CalibrationSummary(
        temperature=temperature,
        fitted_on="valid",
        log_loss=[LOG_LOSS.value(logits, test_target) for logits in (test_logits, scaled)],
        ece=[ECE.value(logits, test_target) for logits in (test_logits, scaled)],
        bins=reliability(test_logits, test_target),
        bins_after=reliability(scaled, test_target),
    )
