"""Metrics of pairs of answers, by the network and by the one before the stage.

See `tasks/language_model/preference_evaluation.py` for the outputs [N, 7].
"""

from __future__ import annotations

import numpy as np

from tunewright.evaluation.metrics.base import Metric, Outcome, weighted_mean
from tunewright.evaluation.metrics.token_prediction import PREFERENCES
from tunewright.runs.summary.facts import Title


def preference_accuracy(outcome: Outcome, weights: np.ndarray) -> np.ndarray:
    """Return the share of the pairs whose chosen answer is the likelier one; the same probability counts half."""
    return weighted_mean(_above(outcome.outputs[:, 2] - outcome.outputs[:, 0]), weights)


def reward_accuracy(outcome: Outcome, weights: np.ndarray) -> np.ndarray:
    """Return the share of the pairs whose chosen answer became more likely than the rejected one did, against the network before
    the stage (Rafailov et al. 2023, section 5); the same counts half."""
    return weighted_mean(_above(_margins(outcome)), weights)


def reward_margin(outcome: Outcome, weights: np.ndarray) -> np.ndarray:
    """By how much, in nats, the chosen answer's log probability grew more than the rejected one's; times β it is the
    margin of the rewards that DPO is about."""
    return weighted_mean(_margins(outcome), weights)


def kl(outcome: Outcome, weights: np.ndarray) -> np.ndarray:
    """Mean over the tokens of both answers of KL(network ‖ network before), in nats: how far it has moved on these texts."""
    return weights @ outcome.outputs[:, 5] / (weights @ (outcome.target + outcome.outputs[:, 6]))


def _margins(outcome: Outcome) -> np.ndarray:
    chosen, _, rejected, chosen_before, rejected_before, *_ = outcome.outputs.T
    return (rejected - rejected_before) - (chosen - chosen_before)


def _above(values: np.ndarray) -> np.ndarray:
    return (np.sign(values) + 1) / 2


REWARD_ACCURACY = Metric(
    name="reward_accuracy",
    title=Title(en="reward accuracy", zh="奖励准确率"),
    kinds=(PREFERENCES,),
    greater_is_better=True,
    formula=reward_accuracy,
    style="percent",
)
PREFERENCE_ACCURACY = Metric(
    name="preference_accuracy",
    title=Title(en="preference accuracy", zh="偏好准确率"),
    kinds=(PREFERENCES,),
    greater_is_better=True,
    formula=preference_accuracy,
    style="percent",
)
REWARD_MARGIN = Metric(
    name="reward_margin",
    title=Title(en="reward margin in nats", zh="奖励差（纳特）"),
    kinds=(PREFERENCES,),
    greater_is_better=True,
    formula=reward_margin,
)
KL = Metric(
    name="kl",
    title=Title(en="KL divergence from the model before, nats per token", zh="相对阶段前模型的 KL 散度（纳特/词元）"),
    kinds=(PREFERENCES,),
    greater_is_better=False,
    formula=kl,
)
