"""Metrics, each as a formula that takes the examples with weights.

The weights are how often an example was drawn in a bootstrap resample, so one matrix product measures a thousand
resamples. Classification gets logits [N, K] and class indices [N]; with several labels an example logits [N, K] and [N, K]
of 0 and 1; regression predictions [N] and numbers [N]. Hidden tokens are summed up for each text: outputs [N, 2] are the
sum of −log p of its hidden tokens and how many of them the largest logit names, the target [N] is how many there are. So
texts, not tokens, are resampled. The next tokens of a language model likewise, with the text's bytes as a third output; and the
tokens of a chat model's answers, gathered by conversation; of pairs of answers both, also by the network before (see
`tasks/language_model/preference_evaluation.py`). Of a ranking users are resampled (see `tasks/recommendation/ranking_evaluation.py`).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property, partial

import numpy as np

from tunewright.errors import RecipeError
from tunewright.plugins import Registry

# What the outputs and targets of an evaluation are; a task and its metrics share it. Any text: other packages add kinds.
Kind = str

# Where the list of items begins among the outputs of a ranking, and how many lists are looked through for an interval.
LISTED = 5
MOST_LISTS = 50_000_000
# ECE: so many bins of equal width over the confidence of the predicted class (Guo et al. 2017, section 2).
ECE_BINS = 15


class Outcome:
    """Outputs and targets of N examples, with what several metrics need computed once.

    With several labels an example, a label is predicted when its probability is above 1/2, its logit above 0.
    """

    def __init__(self, outputs: np.ndarray, target: np.ndarray, groups: np.ndarray | None = None) -> None:
        self.outputs = np.asarray(outputs, dtype=np.float64)
        self.target = np.asarray(target)
        # [N]: to whom each example belongs, such as a user; None: to nobody.
        self.groups = groups
        if len(self.outputs) != len(self.target):
            raise ValueError(f"{len(self.outputs)} outputs for {len(self.target)} targets")
        if np.isnan(self.outputs).any():
            raise ValueError("an output is not a number")

    def __len__(self) -> int:
        return len(self.target)

    @property
    def several(self) -> bool:
        """Whether an example has any number of labels."""
        return self.target.ndim == 2

    @cached_property
    def log_probabilities(self) -> np.ndarray:
        """[N, K] log softmax of the logits; log sigmoid of each where there are several labels."""
        if self.several:
            return -np.logaddexp(0, -self.outputs)
        shifted = self.outputs - self.outputs.max(1, keepdims=True)
        return shifted - np.log(np.exp(shifted).sum(1, keepdims=True))

    @cached_property
    def probabilities(self) -> np.ndarray:
        return np.exp(self.log_probabilities)

    @cached_property
    def predicted(self) -> np.ndarray:
        """[N] the class with the largest logit."""
        return self.outputs.argmax(1)

    @cached_property
    def actual(self) -> np.ndarray:
        """[N, K] of 0 and 1: the classes that an example has."""
        if self.several:
            return self.target.astype(np.float64)
        return (self.target[:, None] == np.arange(self.outputs.shape[1])).astype(np.float64)

    @cached_property
    def chosen(self) -> np.ndarray:
        """[N, K] of 0 and 1: the classes that are predicted."""
        if self.several:
            return (self.outputs > 0).astype(np.float64)
        return (self.predicted[:, None] == np.arange(self.outputs.shape[1])).astype(np.float64)

    @cached_property
    def correct(self) -> np.ndarray:
        """[N]: 1 where the class, or the whole set of labels, is right."""
        if self.several:
            return (self.actual == self.chosen).all(1).astype(np.float64)
        return (self.predicted == self.target).astype(np.float64)

    @cached_property
    def losses(self) -> np.ndarray:
        """[N]: −log p of the right class; the mean over labels of the binary −log p; |error| of a regression."""
        if self.outputs.ndim == 1:
            return np.abs(self.outputs - self.target)
        if self.several:
            return (np.logaddexp(0, self.outputs) - self.actual * self.outputs).mean(1)
        return -self.log_probabilities[np.arange(len(self)), self.target]


# Weights [R, N] to values [R]; NaN where the metric has no value.
Formula = Callable[[Outcome, np.ndarray], np.ndarray]


@dataclass(frozen=True)
class Metric:
    """A metric by name."""

    name: str
    kinds: tuple[Kind, ...]
    """The kinds of targets that it is for."""
    greater_is_better: bool
    formula: Formula

    def value(self, outputs: np.ndarray, target: np.ndarray) -> float:
        """The metric on all examples, each counted once; NaN where it has no value."""
        outcome = Outcome(outputs, target)
        return float(self.formula(outcome, np.ones((1, len(outcome))))[0])


def accuracy(outcome: Outcome, weights: np.ndarray) -> np.ndarray:
    """The share of examples whose largest logit is that of their class."""
    return _mean(outcome.correct, weights)


def f1_macro(outcome: Outcome, weights: np.ndarray) -> np.ndarray:
    """The mean over classes of F1 = 2 TP / (2 TP + FP + FN); a class that is neither present nor predicted is left out."""
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
    """The share of examples whose predicted labels are exactly theirs."""
    return _mean(outcome.correct, weights)


def hamming_loss(outcome: Outcome, weights: np.ndarray) -> np.ndarray:
    """The share of wrong answers over all examples and labels."""
    return _mean(np.abs(outcome.actual - outcome.chosen).mean(1), weights)


def log_loss(outcome: Outcome, weights: np.ndarray) -> np.ndarray:
    """Mean −log p of the true class, in nats; with several labels the mean over examples and labels."""
    return _mean(outcome.losses, weights)


def brier(outcome: Outcome, weights: np.ndarray) -> np.ndarray:
    """Mean squared distance between the probabilities and the one-hot truth, summed over classes (Brier 1950): 0 to 2."""
    truth = outcome.target[:, None] == np.arange(outcome.outputs.shape[1])
    return _mean(np.square(outcome.probabilities - truth).sum(1), weights)


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
    return _over_classes(outcome, weights, _roc_auc)


def pr_auc(outcome: Outcome, weights: np.ndarray) -> np.ndarray:
    """Average precision: Σ (recall step) × precision, over falling scores, equal scores together; classes as in roc_auc."""
    return _over_classes(outcome, weights, _average_precision)


def mae(outcome: Outcome, weights: np.ndarray) -> np.ndarray:
    """Mean absolute error, in the target's unit."""
    return _mean(np.abs(outcome.outputs - outcome.target), weights)


def rmse(outcome: Outcome, weights: np.ndarray) -> np.ndarray:
    """Root of the mean squared error, in the target's unit."""
    return np.sqrt(_mean(np.square(outcome.outputs - outcome.target), weights))


def r2(outcome: Outcome, weights: np.ndarray) -> np.ndarray:
    """1 − Σ(y − ŷ)² / Σ(y − ȳ)²; no value where the target is constant."""
    total = weights.sum(1)
    # Around the overall mean, so that large offsets do not cost digits.
    centred = outcome.target - outcome.target.mean()
    spread = weights @ np.square(centred) - np.square(weights @ centred) / total
    errors = weights @ np.square(outcome.outputs - outcome.target)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(spread > 1e-12 * total, 1 - errors / spread, np.nan)


def masked_loss(outcome: Outcome, weights: np.ndarray) -> np.ndarray:
    """Mean −log p of the hidden tokens, in nats."""
    return _for_each_token(outcome, 0, weights)


def pseudo_perplexity(outcome: Outcome, weights: np.ndarray) -> np.ndarray:
    """exp of the mean −log p of the hidden tokens.

    So many are hidden at once, not one at a time as in Salazar et al. 2020: the two do not compare.
    """
    return np.exp(masked_loss(outcome, weights))


def masked_accuracy(outcome: Outcome, weights: np.ndarray) -> np.ndarray:
    """The share of the hidden tokens that the largest logit names."""
    return _for_each_token(outcome, 1, weights)


def token_loss(outcome: Outcome, weights: np.ndarray) -> np.ndarray:
    """Mean −log p of a token given those before it, in nats."""
    return _for_each_token(outcome, 0, weights)


def perplexity(outcome: Outcome, weights: np.ndarray) -> np.ndarray:
    """exp of the mean −log p of a token; depends on the tokenizer, so it compares models with the same one only."""
    return np.exp(token_loss(outcome, weights))


def bits_per_byte(outcome: Outcome, weights: np.ndarray) -> np.ndarray:
    """Σ −log₂ p over all tokens, ends of texts among them, for each UTF-8 byte: compares models with any tokenizer."""
    with np.errstate(invalid="ignore", divide="ignore"):
        return weights @ outcome.outputs[:, 0] / (weights @ outcome.outputs[:, 2]) / np.log(2)


def exact_match(outcome: Outcome, weights: np.ndarray) -> np.ndarray:
    """The share of the conversations of which every answer (of pairs: the chosen one) is given word for word, writing the
    likeliest token each time."""
    return _mean((outcome.outputs[:, 1] == outcome.target).astype(np.float64), weights)


def next_token_accuracy(outcome: Outcome, weights: np.ndarray) -> np.ndarray:
    """The share of the tokens that the largest logit names."""
    return _for_each_token(outcome, 1, weights)


def preference_accuracy(outcome: Outcome, weights: np.ndarray) -> np.ndarray:
    """The share of the pairs whose chosen answer is the likelier one; the same probability counts half."""
    return _mean(_above(outcome.outputs[:, 2] - outcome.outputs[:, 0]), weights)


def reward_accuracy(outcome: Outcome, weights: np.ndarray) -> np.ndarray:
    """The share of the pairs whose chosen answer became more likely than the rejected one did, against the network before
    the stage (Rafailov et al. 2023, section 5); the same counts half."""
    return _mean(_above(_margins(outcome)), weights)


def reward_margin(outcome: Outcome, weights: np.ndarray) -> np.ndarray:
    """By how much, in nats, the chosen answer's log probability grew more than the rejected one's; times β it is the
    margin of the rewards that DPO is about."""
    return _mean(_margins(outcome), weights)


def kl(outcome: Outcome, weights: np.ndarray) -> np.ndarray:
    """Mean over the tokens of both answers of KL(network ‖ network before), in nats: how far it has moved on these texts."""
    return weights @ outcome.outputs[:, 5] / (weights @ (outcome.target + outcome.outputs[:, 6]))


def _margins(outcome: Outcome) -> np.ndarray:
    chosen, _, rejected, chosen_before, rejected_before, *_ = outcome.outputs.T
    return (rejected - rejected_before) - (chosen - chosen_before)


def _above(values: np.ndarray) -> np.ndarray:
    return (np.sign(values) + 1) / 2


def _listed(column: int, outcome: Outcome, weights: np.ndarray) -> np.ndarray:
    """The mean over users of what was found for each: of a list of ten, the discounted gain over that of the best list
    (Järvelin and Kekäläinen 2002), the reciprocal rank of the first hit, the average precision, the surprise in bits."""
    return _mean(outcome.outputs[:, column], weights)


def recall(outcome: Outcome, weights: np.ndarray) -> np.ndarray:
    """The mean over users of the share of the wanted items that stand in the list."""
    return _mean(outcome.outputs[:, 0] / np.maximum(outcome.target, 1), weights)


def precision(outcome: Outcome, weights: np.ndarray) -> np.ndarray:
    """The mean over users of the share of the list that was wanted."""
    return _mean(outcome.outputs[:, 0] / (outcome.outputs.shape[1] - LISTED), weights)


def hit(outcome: Outcome, weights: np.ndarray) -> np.ndarray:
    """The share of the users whose list has a wanted item."""
    return _mean((outcome.outputs[:, 0] > 0).astype(np.float64), weights)


def coverage(outcome: Outcome, weights: np.ndarray) -> np.ndarray:
    """How many different items stand in the lists, for each user: 10 where no two lists have an item in common."""
    lists = outcome.outputs[:, LISTED:].astype(np.int64)
    if len(weights) > 1 and weights.size > MOST_LISTS:
        return np.full(len(weights), np.nan)  # an interval would take too long
    return np.array([len(np.unique(lists[drawn > 0])) / max(1, drawn.sum()) for drawn in weights])


def wer(outcome: Outcome, weights: np.ndarray) -> np.ndarray:
    """Word error rate: words to be changed, put in or taken out, for each word there is, over all recordings."""
    return _ratio(outcome.outputs[:, 0], outcome.outputs[:, 1], weights)


def cer(outcome: Outcome, weights: np.ndarray) -> np.ndarray:
    """Letter error rate, likewise; blanks between words do not count."""
    return _ratio(outcome.outputs[:, 2], outcome.outputs[:, 3], weights)


def _ratio(part: np.ndarray, whole: np.ndarray, weights: np.ndarray) -> np.ndarray:
    with np.errstate(invalid="ignore", divide="ignore"):
        return weights @ part / (weights @ whole)


def grouped_auc(outcome: Outcome, weights: np.ndarray) -> np.ndarray:
    """The mean over users of each one's ROC AUC, weighted by their examples; users with one class alone are left out (Zhu et al.
    2017, section 4.3). It asks whether a user's own rows are in order, and not whether users are. NaN where nobody is known."""
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


METRICS = Registry[Metric](
    "tunewright.metrics",
    {
        metric.name: metric
        for metric in (
            Metric("accuracy", ("classification",), True, accuracy),
            Metric("f1_micro", ("multilabel",), True, f1_micro),
            Metric("f1_macro", ("classification", "multilabel"), True, f1_macro),
            Metric("subset_accuracy", ("multilabel",), True, subset_accuracy),
            Metric("hamming_loss", ("multilabel",), False, hamming_loss),
            Metric("log_loss", ("classification", "multilabel"), False, log_loss),
            Metric("brier", ("classification",), False, brier),
            Metric("ece", ("classification",), False, ece),
            Metric("roc_auc", ("classification", "multilabel"), True, roc_auc),
            Metric("grouped_auc", ("classification",), True, grouped_auc),
            Metric("pr_auc", ("classification", "multilabel"), True, pr_auc),
            Metric("mae", ("regression",), False, mae),
            Metric("rmse", ("regression",), False, rmse),
            Metric("r2", ("regression",), True, r2),
            Metric("masked_loss", ("tokens",), False, masked_loss),
            Metric("pseudo_perplexity", ("tokens",), False, pseudo_perplexity),
            Metric("masked_accuracy", ("tokens",), True, masked_accuracy),
            Metric("token_loss", ("next_tokens", "answers", "preferences"), False, token_loss),
            Metric("perplexity", ("next_tokens", "answers", "preferences"), False, perplexity),
            Metric("exact_match", ("answers", "preferences"), True, exact_match),
            Metric("bits_per_byte", ("next_tokens",), False, bits_per_byte),
            Metric("next_token_accuracy", ("next_tokens", "answers", "preferences"), True, next_token_accuracy),
            Metric("reward_accuracy", ("preferences",), True, reward_accuracy),
            Metric("preference_accuracy", ("preferences",), True, preference_accuracy),
            Metric("reward_margin", ("preferences",), True, reward_margin),
            Metric("kl", ("preferences",), False, kl),
            Metric("ndcg_at_10", ("ranking",), True, partial(_listed, 1)),
            Metric("recall_at_10", ("ranking",), True, recall),
            Metric("precision_at_10", ("ranking",), True, precision),
            Metric("hit_at_10", ("ranking",), True, hit),
            Metric("mrr_at_10", ("ranking",), True, partial(_listed, 2)),
            Metric("map_at_10", ("ranking",), True, partial(_listed, 3)),
            Metric("novelty", ("ranking",), True, partial(_listed, 4)),
            Metric("wer", ("transcripts",), False, wer),
            Metric("cer", ("transcripts",), False, cer),
            Metric("coverage", ("ranking",), True, coverage),
        )
    },
)


def get_metric(name: str, kind: str, place: str = "eval.metrics") -> Metric:
    """The metric of that name, for a kind of target.

    Raises:
        RecipeError: there is none, or it is for the other kind.
    """
    import difflib

    known = [metric.name for metric in METRICS.values() if kind in metric.kinds]
    if name in known:
        return METRICS[name]
    near = difflib.get_close_matches(name, known, n=1)
    raise RecipeError(
        f"there is no metric of this name for {kind}",
        place=place,
        found=name,
        expected=", ".join(known),
        fix=f"did you mean {near[0]}?" if near else "choose one of these",
    )


def _mean(values: np.ndarray, weights: np.ndarray) -> np.ndarray:
    return weights @ values / weights.sum(1)


def _for_each_token(outcome: Outcome, column: int, weights: np.ndarray) -> np.ndarray:
    """A sum over the texts' hidden tokens, divided by their number; NaN where there are none."""
    with np.errstate(invalid="ignore", divide="ignore"):
        return weights @ outcome.outputs[:, column] / (weights @ outcome.target)


def _over_classes(outcome: Outcome, weights: np.ndarray, binary: Callable[..., np.ndarray]) -> np.ndarray:
    logits = outcome.outputs
    if logits.shape[1] == 2 and not outcome.several:
        return binary(logits[:, 1] - logits[:, 0], outcome.target == 1, weights)
    scores = logits if outcome.several else outcome.log_probabilities
    each = [binary(scores[:, k], outcome.actual[:, k] == 1, weights) for k in range(logits.shape[1])]
    # A class that is absent from a resample has no curve there; where none has one, there is no value.
    stacked = np.stack(each)
    present = np.isfinite(stacked)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(present, stacked, 0.0).sum(0) / present.sum(0)


def _ranked(scores: np.ndarray, positive: np.ndarray, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Weights of positives and negatives [R, G] at each different score, in rising order."""
    order = np.argsort(scores, kind="stable")
    starts = np.flatnonzero(np.r_[True, np.diff(scores[order]) > 0])
    ordered = weights[:, order]
    positives = np.add.reduceat(ordered * positive[order], starts, axis=1)
    return positives, np.add.reduceat(ordered, starts, axis=1) - positives


def _roc_auc(scores: np.ndarray, positive: np.ndarray, weights: np.ndarray) -> np.ndarray:
    positives, negatives = _ranked(scores, positive, weights)
    below = np.cumsum(negatives, axis=1) - negatives / 2
    pairs = positives.sum(1) * negatives.sum(1)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(pairs > 0, (positives * below).sum(1) / pairs, np.nan)


def _average_precision(scores: np.ndarray, positive: np.ndarray, weights: np.ndarray) -> np.ndarray:
    positives, negatives = _ranked(scores, positive, weights)
    positives, negatives = positives[:, ::-1], negatives[:, ::-1]
    found = np.cumsum(positives, axis=1)
    drawn = found + np.cumsum(negatives, axis=1)
    total = positives.sum(1)
    with np.errstate(invalid="ignore", divide="ignore"):
        precision = np.where(drawn > 0, found / drawn, 0.0)
        return np.where(total > 0, (positives * precision).sum(1) / total, np.nan)
