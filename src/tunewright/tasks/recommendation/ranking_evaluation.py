"""How well the items that a user chose later stand in the list of all items: every item is ranked, none is sampled.

What the user is known to have chosen before is not in the list. Sampled metrics, where the chosen item is ranked among a few
others, order models otherwise (Krichene and Rendle 2020), so there are none here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from scipy import sparse

from tunewright.data.prepared import Prepared
from tunewright.evaluation.baselines import Baseline
from tunewright.evaluation.metrics import Outcome
from tunewright.evaluation.metrics.ranked_lists import LISTED
from tunewright.models.core.network import Network, evaluating
from tunewright.models.recommendation.base import Recommender
from tunewright.random import uniform
from tunewright.runs.summary.evaluation import RankingSummary, TaskFindings
from tunewright.tasks.base.encoders import Encoders
from tunewright.tasks.base.evaluation import Evaluation, Measured
from tunewright.tasks.recommendation.interaction_encoder import InteractionEncoder

# The length of the list.
TOP = 10
# Scores that are in memory at once.
SCORES = 8_000_000
# Closed-form and neighbour baselines hold a number for each pair of items: for more items they are skipped.
MOST_ITEMS = 20_000
NEIGHBOURS = 100
# The l2 term of EASE, as its author uses it for sets of this size.
EASE_L2 = 250.0
# Of more users than these the lists of a part are measured; the intervals say how sure that is.
MOST_USERS = 10_000
# What `predict` recommends.
RECOMMENDED = 10

Scores = Callable[[np.ndarray], np.ndarray]


def ranked_users(encoder: InteractionEncoder, table: pa.Table) -> np.ndarray:
    """Return [U] int64: the users of a table of whom something was learned, each once; of very many a part, drawn by their
    numbers."""
    users = np.unique(encoder.pairs(table)[0][:, 0])
    if len(users) <= MOST_USERS:
        return users
    drawn = uniform(0, "ranked", 0, users, 1)[:, 0]
    return np.sort(users[np.argsort(drawn, kind="stable")[:MOST_USERS]])


def ranking_outputs(network: Network, before: Network | None, encoder: InteractionEncoder, table: pa.Table) -> Measured:
    """Return what the "ranking" metrics want, for each user of the table: see `rank`."""
    assert isinstance(network, Recommender)
    chosen = chosen_before(encoder, encoder.pairs(table)[0]) if network.length else encoder.known
    return rank(encoder, table, network_scores(network, encoder, chosen))


def chosen_before(encoder: InteractionEncoder, pairs: np.ndarray) -> np.ndarray:
    """Return [K, 2]: what is known, but for what is asked: that was chosen later."""
    return encoder.known[~np.isin(encoder.keys(encoder.known), encoder.keys(pairs))]


def ranking_facts(network: Network, encoder: InteractionEncoder, table: pa.Table) -> TaskFindings:
    """Return the protocol in figures."""
    pairs, _ = encoder.pairs(table)
    return TaskFindings(
        ranking=RankingSummary(
            items=len(encoder.items),
            users=len(ranked_users(encoder, table)),
            asked=len(pairs),
            unknown=table.num_rows - len(pairs),
        )
    )


def network_scores(network: Recommender, encoder: InteractionEncoder, chosen: np.ndarray) -> Scores:
    """Turn users [B] into scores [B, I].

    Args:
        chosen: [K, 2], what the users chose until then, by user and in its order, where the network looks at it.
    """
    device = next(network.parameters()).device

    def scores(users: np.ndarray) -> np.ndarray:
        history = None
        if network.length:
            history = torch.from_numpy(encoder.histories(users, chosen)).to(device)
        with evaluating(network), torch.inference_mode():
            return network.all_scores(torch.from_numpy(users).to(device), history).float().cpu().numpy()

    return scores


def rank(encoder: InteractionEncoder, table: pa.Table, scores: Scores) -> Measured:
    """For each user of `ranked_users`: [U, 5 + TOP], hits, DCG over the ideal DCG, the reciprocal rank of the first hit, the
    average precision, the popularity of what is listed in bits (−log₂ of the share of the users who chose it, on average); and the
    list itself. And [U], how many items are wanted."""
    pairs, _ = encoder.pairs(table)
    users = ranked_users(encoder, table)
    count = len(encoder.items)
    wanted = _flags(pairs, len(encoder.users), count)
    known = _flags(chosen_before(encoder, pairs), len(encoder.users), count)
    chosen = np.bincount(encoder.learned[:, 1], minlength=count)
    surprise = -np.log2(np.maximum(chosen, 0.5) / len(encoder.users))
    top = min(TOP, count)
    gains = 1 / np.log2(np.arange(2, top + 2))
    ideal = np.concatenate([[1.0], np.cumsum(gains)])
    outputs, target = np.zeros((len(users), LISTED + top)), np.zeros(len(users), np.int64)
    for part in _parts(len(users), count):
        block = np.array(scores(users[part]), np.float32)
        block[known[users[part]].nonzero()] = -np.inf
        best = _best(block, top)
        hit = np.asarray(wanted[users[part]][np.arange(len(best))[:, None], best].todense(), np.float64)
        size = np.asarray(wanted[users[part]].sum(1)).ravel().astype(np.int64)
        target[part] = size
        first = np.where(hit.any(1), 1 / (hit.argmax(1) + 1), 0)
        precision = (np.cumsum(hit, axis=1) / np.arange(1, top + 1) * hit).sum(1)
        reachable = np.minimum(size, top)
        columns = [
            hit.sum(1),
            (hit @ gains) / np.maximum(ideal[reachable], 1e-12),
            first,
            precision / np.maximum(reachable, 1),
            surprise[best].mean(1),
        ]
        outputs[part, :LISTED] = np.stack(columns, axis=1)
        outputs[part, LISTED:] = best
    return outputs, target


def ranking_baselines(encoder: InteractionEncoder, train: pa.Table, table: pa.Table) -> list[Baseline]:
    """Return what needs no training: the most popular items, those like the user's own, and EASE (Steck 2019), a linear model in
    closed form that beats most networks on small sets."""
    count = len(encoder.items)
    seen = _flags(encoder.learned, len(encoder.users), count)
    popular = np.asarray(seen.sum(0)).ravel()
    found = [Baseline("popularity", rank(encoder, table, lambda users: np.tile(popular, (len(users), 1)))[0])]
    if count > MOST_ITEMS:
        return found
    for name, weights in (("item neighbours", _neighbours(seen)), ("EASE", _ease(seen))):
        found.append(Baseline(name, rank(encoder, table, lambda users, weights=weights: seen[users] @ weights)[0]))
    return found


def recommended(
    network: Network, encoder: InteractionEncoder, table: pa.Table, count: int = RECOMMENDED
) -> list[dict[str, Any]]:
    """For each row's user {"items": …, "scores": …}, the best first; of an unknown user the most popular, with a note."""
    assert isinstance(network, Recommender)
    scores = network_scores(network, encoder, encoder.known)
    known = _flags(encoder.known, len(encoder.users), len(encoder.items))
    popular = np.bincount(encoder.learned[:, 1], minlength=len(encoder.items)).astype(np.float64)
    found: list[dict[str, Any]] = []
    for user in encoder.user_numbers(table).tolist():
        block = scores(np.array([user])).astype(np.float64) if user >= 0 else popular[None].copy()
        if user >= 0:
            block[known[[user]].nonzero()] = -np.inf
        best = _best(block, min(count, len(encoder.items)))[0]
        best = best[np.isfinite(block[0, best])]
        answer: dict[str, Any] = {
            "items": [encoder.items[item] for item in best],
            "scores": [round(float(block[0, item]), 4) for item in best],
        }
        if user < 0:
            answer["note"] = "the user has no history: the most popular items"
        found.append(answer)
    return found


def _best(scores: np.ndarray, top: int) -> np.ndarray:
    """Return [B, top] items by falling score; of equal ones among them the first."""
    best = torch.from_numpy(scores).topk(top, dim=1, sorted=False).indices.sort(dim=1).values.numpy()
    order = np.argsort(-np.take_along_axis(scores, best, 1), axis=1, kind="stable")
    return np.take_along_axis(best, order, 1)


def _parts(users: int, items: int) -> Iterator[slice]:
    size = max(1, SCORES // max(1, items))
    for start in range(0, users, size):
        yield slice(start, min(users, start + size))


def _flags(pairs: np.ndarray, users: int, items: int) -> sparse.csr_matrix:
    """Return [U, I]: 1 for each pair."""
    ones = np.ones(len(pairs), np.float32)
    found = sparse.csr_matrix((ones, (pairs[:, 0], pairs[:, 1])), shape=(users, items))
    found.data[:] = 1
    return found


def _neighbours(seen: sparse.csr_matrix) -> np.ndarray:
    """Return [I, I]: the cosine of two items, of each item's nearest alone (Sarwar et al. 2001)."""
    together = np.asarray((seen.T @ seen).todense(), np.float64)
    norms = np.sqrt(np.maximum(together.diagonal(), 1))
    cosines = together / norms[:, None] / norms[None]
    np.fill_diagonal(cosines, 0)
    if len(cosines) > NEIGHBOURS:
        least = np.partition(cosines, -NEIGHBOURS, axis=1)[:, [-NEIGHBOURS]]
        cosines[cosines < least] = 0
    return cosines.T


def _ease(seen: sparse.csr_matrix) -> np.ndarray:
    """Return [I, I]: B = −P / diag(P) with a diagonal of 0, P = (XᵀX + λ)⁻¹ (Steck 2019, equation 8)."""
    gram = np.asarray((seen.T @ seen).todense(), np.float64)
    gram[np.diag_indices_from(gram)] += EASE_L2
    inverse = np.linalg.inv(gram)
    weights = -inverse / inverse.diagonal()[None]
    np.fill_diagonal(weights, 0)
    return weights


class RankingEvaluation(Evaluation):
    """The items that users chose later stand high in the list of all items."""

    kind = "ranking"
    select = "ndcg_at_10"

    def outputs(self, network: Network, before: Network | None, preprocessor: Encoders, table: pa.Table) -> Measured:
        return ranking_outputs(network, before, preprocessor.inputs_as(InteractionEncoder), table)

    def predictions(self, network: Network, preprocessor: Encoders, table: pa.Table) -> list[dict[str, Any]]:
        return recommended(network, preprocessor.inputs_as(InteractionEncoder), table)

    def baselines(self, preprocessor: Encoders, prepared: Prepared, table: pa.Table, seed: int) -> list[Baseline]:
        train = self.sampled(preprocessor, prepared, seed)
        return ranking_baselines(preprocessor.inputs_as(InteractionEncoder), train, table)

    def facts(
        self, network: Network, preprocessor: Encoders, prepared: Prepared, table: pa.Table, outcome: Outcome
    ) -> TaskFindings:
        return ranking_facts(network, preprocessor.inputs_as(InteractionEncoder), table)

    def units(self, preprocessor: Encoders, table: pa.Table) -> np.ndarray:
        return ranked_users(preprocessor.inputs_as(InteractionEncoder), table)
