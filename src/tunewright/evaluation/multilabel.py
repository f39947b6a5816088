"""Several labels an example: the result label by label, and where else than at 1/2 a label could be decided."""

from __future__ import annotations

from typing import Any

import numpy as np

from tunewright.evaluation.metrics import METRICS, Outcome

MEASURED = ("f1_micro", "f1_macro")


def by_label(outcome: Outcome, classes: list[str]) -> list[dict[str, Any]]:
    """For each label the rows that have it and those that are given it, precision, recall, F1 and average precision.

    None where a figure is not defined: precision without a prediction, the others without a row.
    """
    both = (outcome.actual * outcome.chosen).sum(0)
    actual, chosen = outcome.actual.sum(0), outcome.chosen.sum(0)
    found: list[dict[str, Any]] = []
    for k, label in enumerate(classes):
        one = Outcome(outcome.outputs[:, k : k + 1], outcome.target[:, k : k + 1])
        precision = METRICS["pr_auc"].value(one.outputs, one.target)
        found.append(
            {
                "label": label,
                "rows": int(actual[k]),
                "predicted": int(chosen[k]),
                "precision": _share(both[k], chosen[k]),
                "recall": _share(both[k], actual[k]),
                "f1": _share(2 * both[k], actual[k] + chosen[k]),
                "average_precision": precision if np.isfinite(precision) else None,
            }
        )
    return found


def tuned_thresholds(
    valid_logits: np.ndarray, valid_target: np.ndarray, outcome: Outcome, classes: list[str]
) -> dict[str, Any]:
    """For each label the threshold with the best F1 on validation, and what all of them change on test.

    The figures above are those of 1/2: a threshold that was chosen on few rows can do harm, which this shows.
    """
    logits = np.array([best_threshold(valid_logits[:, k], valid_target[:, k]) for k in range(len(classes))])
    moved = Outcome(outcome.outputs - logits, outcome.target)
    return {
        "fitted_on": "valid",
        "by_label": {label: float(1 / (1 + np.exp(-logit))) for label, logit in zip(classes, logits)},
        **{name: [METRICS[name].value(part.outputs, part.target) for part in (outcome, moved)] for name in MEASURED},
    }


def best_threshold(logits: np.ndarray, target: np.ndarray) -> float:
    """The logit above which a label is best given, by F1; 0 where no row has the label.

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


def _share(part: float, whole: float) -> float | None:
    return float(part / whole) if whole else None
