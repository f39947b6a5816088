"""Measure rows with several labels: the result by label, and thresholds other than 1/2."""

from __future__ import annotations

import numpy as np

from tunewright.evaluation.metrics import Outcome
from tunewright.evaluation.metrics.classification import F1_MACRO, F1_MICRO, PR_AUC
from tunewright.runs.summary.evaluation import LabelSummary, ThresholdSummary


def by_label(outcome: Outcome, classes: list[str]) -> list[LabelSummary]:
    """Return for each label the rows that have it, those for which it is predicted, precision, recall, F1 and average precision.

    None where a figure is not defined: precision without a prediction, the others without a row.
    """
    both = (outcome.actual * outcome.chosen).sum(0)
    actual, chosen = outcome.actual.sum(0), outcome.chosen.sum(0)
    found: list[LabelSummary] = []
    for k, label in enumerate(classes):
        one = Outcome(outcome.outputs[:, k : k + 1], outcome.target[:, k : k + 1])
        precision = PR_AUC.value(one.outputs, one.target)
        found.append(
            LabelSummary(
                label=label,
                rows=int(actual[k]),
                predicted=int(chosen[k]),
                precision=_share(both[k], chosen[k]),
                recall=_share(both[k], actual[k]),
                f1=_share(2 * both[k], actual[k] + chosen[k]),
                average_precision=_finite(precision),
            )
        )
    return found


def tuned_thresholds(
    valid_logits: np.ndarray, valid_target: np.ndarray, outcome: Outcome, classes: list[str]
) -> ThresholdSummary:
    """Return for each label the threshold with the best F1 on validation, and what all of them change on test.

    The figures above are those of 1/2: a threshold that was chosen on few rows can do harm, which this shows.
    """
    logits = np.array([best_threshold(valid_logits[:, k], valid_target[:, k]) for k in range(len(classes))])
    moved = Outcome(outcome.outputs - logits, outcome.target)
    return ThresholdSummary(
        fitted_on="valid",
        by_label={label: float(1 / (1 + np.exp(-logit))) for label, logit in zip(classes, logits)},
        f1_micro=[_finite(F1_MICRO.value(part.outputs, part.target)) for part in (outcome, moved)],
        f1_macro=[_finite(F1_MACRO.value(part.outputs, part.target)) for part in (outcome, moved)],
    )


def best_threshold(logits: np.ndarray, target: np.ndarray) -> float:
    """Return the logit above which predicting a label has the best F1; 0 where no row has the label.

    Half way between the two neighbouring logits; of equally good ones that nearest to 0.
    """
    if not target.any():
        return 0.0
    values = np.unique(logits)
    candidates = np.r_[values[0] - 1, (values[1:] + values[:-1]) / 2, 0.0]
    order = np.argsort(-logits, kind="stable")
    ranked, falling = target[order].astype(np.float64).cumsum(), -logits[order]
    given = np.searchsorted(falling, -candidates, side="left")
    hits = np.where(given > 0, ranked[np.maximum(given, 1) - 1], 0.0)
    scores = 2 * hits / (given + target.sum())
    best = candidates[scores >= scores.max() - 1e-12]
    return float(best[np.argmin(np.abs(best))])


def _finite(value: float) -> float | None:
    return value if np.isfinite(value) else None


def _share(part: float, whole: float) -> float | None:
    return float(part / whole) if whole else None
