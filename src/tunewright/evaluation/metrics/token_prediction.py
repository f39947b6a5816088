"""Metrics of tokens, gathered by text: of masked ones, of the next one, and of the answers of a conversation.

Outputs are [N, 2]: the sum of −log p of a text's tokens, and how many of them have the largest logit; targets [N] are how many tokens
there are. So texts, not tokens, are resampled. Where the next token is predicted, the third output is the text's UTF-8 bytes.
"""

from __future__ import annotations

import numpy as np

from tunewright.evaluation.metrics.base import Metric, Outcome, ratio, weighted_mean
from tunewright.runs.summary.facts import Title

MASKED, NEXT, ANSWERS, PREFERENCES = "tokens", "next_tokens", "answers", "preferences"


def masked_loss(outcome: Outcome, weights: np.ndarray) -> np.ndarray:
    """Mean −log p of the hidden tokens, in nats."""
    return ratio(outcome.outputs[:, 0], outcome.target, weights)


def pseudo_perplexity(outcome: Outcome, weights: np.ndarray) -> np.ndarray:
    """exp of the mean −log p of the hidden tokens.

    So many are hidden at once, not one at a time as in Salazar et al. 2020: the two do not compare.
    """
    return np.exp(masked_loss(outcome, weights))


def masked_accuracy(outcome: Outcome, weights: np.ndarray) -> np.ndarray:
    """Return the share of the hidden tokens that the largest logit names."""
    return ratio(outcome.outputs[:, 1], outcome.target, weights)


def token_loss(outcome: Outcome, weights: np.ndarray) -> np.ndarray:
    """Mean −log p of a token given those before it, in nats."""
    return ratio(outcome.outputs[:, 0], outcome.target, weights)


def perplexity(outcome: Outcome, weights: np.ndarray) -> np.ndarray:
    """exp of the mean −log p of a token; depends on the tokenizer, so it compares models with the same one only."""
    return np.exp(token_loss(outcome, weights))


def bits_per_byte(outcome: Outcome, weights: np.ndarray) -> np.ndarray:
    """Σ −log₂ p over all tokens, ends of texts among them, for each UTF-8 byte: compares models with any tokenizer."""
    with np.errstate(invalid="ignore", divide="ignore"):
        return weights @ outcome.outputs[:, 0] / (weights @ outcome.outputs[:, 2]) / np.log(2)


def exact_match(outcome: Outcome, weights: np.ndarray) -> np.ndarray:
    """Return the share of the conversations of which every answer (of pairs: the chosen one) is given word for word, writing the
    likeliest token each time."""
    return weighted_mean((outcome.outputs[:, 1] == outcome.target).astype(np.float64), weights)


def next_token_accuracy(outcome: Outcome, weights: np.ndarray) -> np.ndarray:
    """Return the share of the tokens that the largest logit names."""
    return ratio(outcome.outputs[:, 1], outcome.target, weights)


MASKED_LOSS = Metric(
    name="masked_loss",
    title=Title(en="loss per masked token", zh="每个掩码词元的损失"),
    kinds=(MASKED,),
    greater_is_better=False,
    formula=masked_loss,
    style="amount",
)
PSEUDO_PERPLEXITY = Metric(
    name="pseudo_perplexity",
    title=Title(en="pseudo-perplexity", zh="伪困惑度"),
    kinds=(MASKED,),
    greater_is_better=False,
    formula=pseudo_perplexity,
    style="amount",
)
MASKED_ACCURACY = Metric(
    name="masked_accuracy",
    title=Title(en="accuracy on masked tokens", zh="掩码词元准确率"),
    kinds=(MASKED,),
    greater_is_better=True,
    formula=masked_accuracy,
    style="percent",
)
TOKEN_LOSS = Metric(
    name="token_loss",
    title=Title(en="loss per token", zh="每词元损失"),
    kinds=(NEXT, ANSWERS, PREFERENCES),
    greater_is_better=False,
    formula=token_loss,
    style="amount",
)
PERPLEXITY = Metric(
    name="perplexity",
    title=Title(en="perplexity", zh="困惑度"),
    kinds=(NEXT, ANSWERS, PREFERENCES),
    greater_is_better=False,
    formula=perplexity,
    style="amount",
)
EXACT_MATCH = Metric(
    name="exact_match",
    title=Title(en="exact match of answers", zh="回答完全匹配率"),
    kinds=(ANSWERS, PREFERENCES),
    greater_is_better=True,
    formula=exact_match,
    style="percent",
)
BITS_PER_BYTE = Metric(
    name="bits_per_byte",
    title=Title(en="bits per byte", zh="每字节比特数"),
    kinds=(NEXT,),
    greater_is_better=False,
    formula=bits_per_byte,
)
NEXT_TOKEN_ACCURACY = Metric(
    name="next_token_accuracy",
    title=Title(en="next-token accuracy", zh="下一词元准确率"),
    kinds=(NEXT, ANSWERS, PREFERENCES),
    greater_is_better=True,
    formula=next_token_accuracy,
    style="percent",
)
