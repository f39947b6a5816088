"""Does a confidence of 90 % mean nine in ten? Temperature scaling, and the bins of the reliability diagram."""

from __future__ import annotations

from typing import Any

import numpy as np

from tunewright.evaluation.metrics import ECE_BINS, METRICS, Outcome, bins

LOWEST, HIGHEST = 0.05, 20.0


def fit_temperature(logits: np.ndarray, target: np.ndarray) -> float:
    """The T that minimises the log loss of logits / T on validation data (Guo et al. 2017, section 4.2).

    The loss is convex in 1/T; a golden-section search over log T finds the minimum to a relative 1e-5.
    """
    golden = (5**0.5 - 1) / 2
    low, high = np.log(LOWEST), np.log(HIGHEST)

    def loss(log_temperature: float) -> float:
        return METRICS["log_loss"].value(logits / np.exp(log_temperature), target)

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


def reliability(logits: np.ndarray, target: np.ndarray) -> list[dict[str, Any]]:
    """For each bin of confidence that holds examples: its edges, rows, mean confidence and accuracy."""
    outcome = Outcome(logits, target)
    member, confidence = bins(outcome)
    rows = member.sum(0)
    return [
        {
            "low": index / ECE_BINS,
            "high": (index + 1) / ECE_BINS,
            "rows": int(rows[index]),
            "confidence": float(confidence @ member[:, index] / rows[index]),
            "accuracy": float(outcome.correct @ member[:, index] / rows[index]),
        }
        for index in range(ECE_BINS)
        if rows[index]
    ]


def calibrate(
    valid_logits: np.ndarray, valid_target: np.ndarray, test_logits: np.ndarray, test_target: np.ndarray
) -> dict[str, Any]:
    """Temperature scaling fitted on validation, its effect measured on test: log loss and ECE before and after."""
    temperature = fit_temperature(valid_logits, valid_target)
    scaled = test_logits / temperature
    return {
        "temperature": temperature,
        "fitted_on": "valid",
        **{
            name: [METRICS[name].value(test_logits, test_target), METRICS[name].value(scaled, test_target)]
            for name in ("log_loss", "ece")
        },
        "bins": reliability(test_logits, test_target),
        "bins_after": reliability(scaled, test_target),
    }
