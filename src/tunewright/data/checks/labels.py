"""Labels that are probably wrong: confident learning (Northcutt, Jiang and Chuang 2021, section 3)."""

from __future__ import annotations

import warnings

import numpy as np

from tunewright.data.checks.finding import Finding
from tunewright.data.checks.material import Material

MOST_ROWS = 8_000
FOLDS = 5


def label_errors(material: Material) -> list[Finding]:
    """Training rows whose label a model that never saw them doubts, and is sure of another one."""
    classes = material.manifest.classes
    if material.labels is None or classes is None:
        return []
    chosen = material.sample(MOST_ROWS, material.splits == "train")
    labels = material.labels[chosen]
    counts = np.bincount(labels, minlength=len(classes))
    if (counts[counts > 0] < FOLDS).any() or (counts > 0).sum() < 2:
        return []
    inputs = material.numbers(chosen)
    if inputs.shape[1] == 0:
        return []
    chances = out_of_fold(inputs, labels, material.seed)
    suspects = doubtful(chances, labels)
    if not len(suspects):
        return []
    share = len(suspects) / len(chosen)
    note = (
        f" (of {len(chosen):,} training rows drawn by the seed)"
        if len(chosen) < (material.splits == "train").sum()
        else ""
    )
    return [
        Finding(
            code="label-errors",
            severity="warning" if share > 0.03 else "info",
            title=f"{len(suspects):,} labels look wrong to a simple model, {share:.1%}{note}",
            count=len(suspects),
            examples=[
                f"{material.name_row(int(chosen[i]))}: labelled {classes[labels[i]]!r}, looks like {classes[int(chances[i].argmax())]!r} ({chances[i].max():.0%})"
                for i in suspects[:3]
            ],
            fix="look at these rows first; a simple model errs too, so correct only what you can see is wrong",
        )
    ]


def out_of_fold(inputs: np.ndarray, labels: np.ndarray, seed: int) -> np.ndarray:
    """Return [N, K] class probabilities of a logistic regression, each row's from a fit on the other folds."""
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import StratifiedKFold, cross_val_predict

    spread = inputs.std(0)
    scaled = (inputs - inputs.mean(0)) / np.where(spread > 0, spread, 1)
    present = np.unique(labels)
    folds = StratifiedKFold(FOLDS, shuffle=True, random_state=seed)
    with warnings.catch_warnings():
        # Probabilities for ranking need no last digit.
        warnings.simplefilter("ignore", ConvergenceWarning)
        model = LogisticRegression(C=0.1, max_iter=60)
        found = np.asarray(cross_val_predict(model, scaled, labels, cv=folds, method="predict_proba"))
    chances = np.zeros((len(labels), int(labels.max()) + 1))
    chances[:, present] = found
    return chances


def doubtful(chances: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Positions of suspected label errors, the surest first.

    A class's threshold is the mean probability that its own examples give it; an example counts for the likeliest class
    whose threshold it passes. Suspect are those that count for another class than their label (the confident joint, off
    its diagonal), ranked by p(label) − p(likeliest other).
    """
    thresholds = np.array(
        [chances[labels == k, k].mean() if (labels == k).any() else 1.1 for k in range(chances.shape[1])]
    )
    passing = np.where(chances >= thresholds, chances, -1.0)
    counted = passing.argmax(1)
    suspects = np.flatnonzero((passing.max(1) > 0) & (counted != labels))
    margin = chances[suspects, labels[suspects]] - chances[suspects, counted[suspects]]
    return suspects[np.argsort(margin, kind="stable")]
