"""Metrics of lists of items: users are resampled (see `tasks/recommendation/ranking_evaluation.py`)."""

from __future__ import annotations

from functools import partial

import numpy as np

from tunewright.evaluation.metrics.base import Metric, Outcome, weighted_mean
from tunewright.runs.summary.facts import Title

RANKING = "ranking"
# Where the list of items begins among the outputs, and how many lists are looked through for an interval.
LISTED = 5
MOST_LISTS = 50_000_000


def _listed(column: int, outcome: Outcome, weights: np.ndarray) -> np.ndarray:
    """Return the mean over users of what was found for each: of a list of ten, the discounted gain over that of the best list
    (Järvelin and Kekäläinen 2002), the reciprocal rank of the first hit, the average precision, the surprise in bits."""
    return weighted_mean(outcome.outputs[:, column], weights)


def recall(outcome: Outcome, weights: np.ndarray) -> np.ndarray:
    """Return the mean over users of the share of the wanted items that stand in the list."""
    return weighted_mean(outcome.outputs[:, 0] / np.maximum(outcome.target, 1), weights)


def precision(outcome: Outcome, weights: np.ndarray) -> np.ndarray:
    """Return the mean over users of the share of the list that was wanted."""
    return weighted_mean(outcome.outputs[:, 0] / (outcome.outputs.shape[1] - LISTED), weights)


def hit(outcome: Outcome, weights: np.ndarray) -> np.ndarray:
    """Return the share of the users whose list has a wanted item."""
    return weighted_mean((outcome.outputs[:, 0] > 0).astype(np.float64), weights)


def coverage(outcome: Outcome, weights: np.ndarray) -> np.ndarray:
    """Return how many different items stand in the lists, for each user: 10 where no two lists have an item in common."""
    lists = outcome.outputs[:, LISTED:].astype(np.int64)
    if len(weights) > 1 and weights.size > MOST_LISTS:
        return np.full(len(weights), np.nan)  # an interval would take too long
    return np.array([len(np.unique(lists[drawn > 0])) / max(1, drawn.sum()) for drawn in weights])


NDCG_AT_10 = Metric(
    name="ndcg_at_10",
    title=Title(en="NDCG@10", zh="NDCG@10"),
    kinds=(RANKING,),
    greater_is_better=True,
    formula=partial(_listed, 1),
)
RECALL_AT_10 = Metric(
    name="recall_at_10",
    title=Title(en="recall@10", zh="召回率@10"),
    kinds=(RANKING,),
    greater_is_better=True,
    formula=recall,
)
PRECISION_AT_10 = Metric(
    name="precision_at_10",
    title=Title(en="precision@10", zh="精确率@10"),
    kinds=(RANKING,),
    greater_is_better=True,
    formula=precision,
)
HIT_AT_10 = Metric(
    name="hit_at_10",
    title=Title(en="hit rate@10", zh="命中率@10"),
    kinds=(RANKING,),
    greater_is_better=True,
    formula=hit,
)
MRR_AT_10 = Metric(
    name="mrr_at_10",
    title=Title(en="MRR@10", zh="MRR@10"),
    kinds=(RANKING,),
    greater_is_better=True,
    formula=partial(_listed, 2),
)
MAP_AT_10 = Metric(
    name="map_at_10",
    title=Title(en="MAP@10", zh="MAP@10"),
    kinds=(RANKING,),
    greater_is_better=True,
    formula=partial(_listed, 3),
)
NOVELTY = Metric(
    name="novelty",
    title=Title(en="novelty of the list in bits", zh="列表新颖度（比特）"),
    kinds=(RANKING,),
    greater_is_better=True,
    formula=partial(_listed, 4),
)
COVERAGE = Metric(
    name="coverage",
    title=Title(en="distinct items per list", zh="每个列表的不同物品数"),
    kinds=(RANKING,),
    greater_is_better=True,
    formula=coverage,
)
