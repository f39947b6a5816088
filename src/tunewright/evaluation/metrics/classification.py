"""Metrics of classes: logits [N, K] and class indices [N]; of several labels logits [N, K] and [N, K] of 0 and 1."""

from __future__ import annotations

import numpy as np

from tunewright.evaluation.metrics.base import Metric, Outcome, weighted_mean
from tunewright.evaluation.metrics.curves import average_precision, over_classes, roc_area
from tunewright.runs.summary.facts import Title

# Of the choices of a question, each is an output.
CLASSES, LABELS, CHOICES = "classification", "multilabel", "choices"
# ECE: so many bins of equal width over the confidence of the predicted class (Guo et al. 2017, section 2).
ECE_BINS = 15


def accuracy(outcome: Outcome, weights: np.ndarray) -> np.ndarray:
    """Return the share of examples whose largest logit is that of their class."""
    return weighted_mean(outcome.correct, weights)


def f1_macro(outcome: Outcome, weights: np.ndarray) -> np.ndarray:
    """Return the mean over classes of F1 = 2 TP / (2 TP + FP + FN); a class that is neither present nor predicted is skipped."""
    both = weights @ (outcome.actual * outcome.chosen)
    total = weights @ outcome.actual + weights @ outcome.chosen
    counted = total > 0
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(counted, 2 * both / total, 0.0).sum(1) / counted.sum(1)


def f1_micro(outcome: Outcome, weights: np.ndarray) -> np.ndarray:
    """2 TP / (2 TP + FP + FN), counted over all examples and labels; no value where there is no label at all."""
    both = weights @ (outcome.actual * outcome.chosen).sum(1)
    total = weights @ (outcome.actual + outcome.chosen).sum(1)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(total > 0, 2 * both / total, np.nan)


def subset_accuracy(outcome: Outcome, weights: np.ndarray) -> np.ndarray:
    """Return the share of examples whose predicted labels are exactly theirs."""
    return weighted_mean(outcome.correct, weights)


def hamming_loss(outcome: Outcome, weights: np.ndarray) -> np.ndarray:
    """Return the share of wrong answers over all examples and labels."""
    return weighted_mean(np.abs(outcome.actual - outcome.chosen).mean(1), weights)


def log_loss(outcome: Outcome, weights: np.ndarray) -> np.ndarray:
    """Mean −log p of the true class, in nats; with several labels the mean over examples and labels."""
    return weighted_mean(outcome.losses, weights)


def brier(outcome: Outcome, weights: np.ndarray) -> np.ndarray:
    """Mean squared distance between the probabilities and the one-hot truth, summed over classes (Brier 1950): 0 to 2."""
    truth = outcome.target[:, None] == np.arange(outcome.outputs.shape[1])
    return weighted_mean(np.square(outcome.probabilities - truth).sum(1), weights)


def ece(outcome: Outcome, weights: np.ndarray) -> np.ndarray:
    """Expected calibration error: Σ over 15 bins of equal width of |accuracy − confidence|, by the bins' shares."""
    member, confidence = bins(outcome)
    gaps = weights @ (member * (outcome.correct - confidence)[:, None])
    return np.abs(gaps).sum(1) / weights.sum(1)


def bins(outcome: Outcome) -> tuple[np.ndarray, np.ndarray]:
    """Membership [N, bins] as 0 and 1, and the confidence [N]; bin m holds (m/M, (m+1)/M]."""
    confidence = outcome.probabilities.max(1)
    index = np.clip(np.ceil(confidence * ECE_BINS).astype(int) - 1, 0, ECE_BINS - 1)
    return (index[:, None] == np.arange(ECE_BINS)).astype(np.float64), confidence


def roc_auc(outcome: Outcome, weights: np.ndarray) -> np.ndarray:
    """Area under the ROC curve: the chance that a positive outranks a negative, ties counting half (Hanley and McNeil 1982).

    Two classes: by the difference of the logits. More: the mean of each class against the rest. Several labels: the mean
    over labels.
    """
    return over_classes(outcome, weights, roc_area)


def pr_auc(outcome: Outcome, weights: np.ndarray) -> np.ndarray:
    """Average precision: Σ (recall step) × precision, over falling scores, equal scores together; classes as in roc_auc."""
    return over_classes(outcome, weights, average_precision)


def grouped_auc(outcome: Outcome, weights: np.ndarray) -> np.ndarray:
    """Return the mean over users of each one's ROC AUC, weighted by their examples; users with one class alone are skipped (Zhu et
    al. 2017, section 4.3). It asks whether a user's own rows are in order, and not whether users are. NaN where nobody is known."""
    if outcome.groups is None or outcome.outputs.shape[1] != 2:
        return np.full(len(weights), np.nan)
    scores = outcome.outputs[:, 1] - outcome.outputs[:, 0]
    order = np.lexsort((scores, outcome.groups))
    group, score = outcome.groups[order], scores[order]
    fresh = np.r_[True, group[1:] != group[:-1]]
    starts = np.flatnonzero(fresh | np.r_[True, score[1:] != score[:-1]])  # of equal scores of a user
    users = np.flatnonzero(fresh[starts])
    ordered = weights[:, order]
    positives = np.add.reduceat(ordered * (outcome.target[order] == 1), starts, axis=1)
    negatives = np.add.reduceat(ordered, starts, axis=1) - positives
    running = np.cumsum(negatives, axis=1) - negatives
    sizes = np.diff(np.r_[users, len(starts)])
    below = running - np.repeat(running[:, users], sizes, axis=1) + negatives / 2
    won = np.add.reduceat(positives * below, users, axis=1)
    good, bad = (np.add.reduceat(part, users, axis=1) for part in (positives, negatives))
    both = good * bad > 0
    with np.errstate(invalid="ignore", divide="ignore"):
        each = np.where(both, won / (good * bad), 0.0)
        counted = np.where(both, good + bad, 0.0)
        return (each * counted).sum(1) / counted.sum(1)


ACCURACY = Metric(
    name="accuracy",
    title=Title(en="accuracy", zh="准确率"),
    kinds=(CLASSES,),
    greater_is_better=True,
    formula=accuracy,
    style="percent",
)
F1_MICRO = Metric(
    name="f1_micro",
    title=Title(en="micro F1", zh="微平均 F1"),
    kinds=(LABELS,),
    greater_is_better=True,
    formula=f1_micro,
    hub_name="f1",
)
F1_MACRO = Metric(
    name="f1_macro",
    title=Title(en="macro F1", zh="宏平均 F1"),
    kinds=(CLASSES, LABELS),
    greater_is_better=True,
    formula=f1_macro,
    hub_name="f1",
)
SUBSET_ACCURACY = Metric(
    name="subset_accuracy",
    title=Title(en="exact match", zh="完全匹配率"),
    kinds=(LABELS,),
    greater_is_better=True,
    formula=subset_accuracy,
    style="percent",
    hub_name="accuracy",
)
HAMMING_LOSS = Metric(
    name="hamming_loss",
    title=Title(en="Hamming loss", zh="汉明损失"),
    kinds=(LABELS,),
    greater_is_better=False,
    formula=hamming_loss,
)
LOG_LOSS = Metric(
    name="log_loss",
    title=Title(en="log loss", zh="对数损失"),
    kinds=(CLASSES, LABELS),
    greater_is_better=False,
    formula=log_loss,
)
BRIER = Metric(
    name="brier",
    title=Title(en="Brier score", zh="Brier 分数"),
    kinds=(CLASSES,),
    greater_is_better=False,
    formula=brier,
    hub_name="brier_score",
)
ECE = Metric(
    name="ece",
    title=Title(en="calibration error (ECE)", zh="校准误差（ECE）"),
    kinds=(CLASSES,),
    greater_is_better=False,
    formula=ece,
)
ROC_AUC = Metric(
    name="roc_auc",
    title=Title(en="ROC AUC", zh="ROC AUC"),
    kinds=(CLASSES, LABELS),
    greater_is_better=True,
    formula=roc_auc,
)
GROUPED_AUC = Metric(
    name="grouped_auc",
    title=Title(en="ROC AUC within users", zh="用户内 ROC AUC"),
    kinds=(CLASSES,),
    greater_is_better=True,
    formula=grouped_auc,
)
PR_AUC = Metric(
    name="pr_auc",
    title=Title(en="PR AUC", zh="PR AUC"),
    kinds=(CLASSES, LABELS),
    greater_is_better=True,
    formula=pr_auc,
    hub_name="average_precision",
)
ACCURACY_PER_BYTE = Metric(
    name="accuracy_per_byte",
    title=Title(en="accuracy by log probability per byte", zh="准确率（按每字节对数概率）"),
    kinds=(CHOICES,),
    greater_is_better=True,
    formula=accuracy,
    style="percent",
)
