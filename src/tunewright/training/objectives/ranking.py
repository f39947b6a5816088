"""Define ranking losses: the items that a user chose should score higher than the others."""

from __future__ import annotations

from collections.abc import Callable, Sized
from dataclasses import dataclass
from functools import cached_property
from typing import Annotated, Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Float, Int
from pydantic import Field
from torch import Tensor
from torch.nn import functional as F

from tunewright.data.batches.batch import Batch, Inputs
from tunewright.errors import RecipeError
from tunewright.models.recommendation.base import Factors
from tunewright.models.recommendation.sasrec import NextItem
from tunewright.random import uniform
from tunewright.training.objectives.base import Objective, Scalar

# Up to this many pairs of a user and an item, the pairs that are not in the training data are listed, 4 bytes each.
WRITTEN_OUT = 2**26


@runtime_checkable
class Interactions(Protocol):
    """Hold the interactions that ranking losses are built from."""

    users: Sized
    items: Sized
    learned: np.ndarray
    """[pairs, 2]: the pairs of a user and an item in the training data."""

    @property
    def length(self) -> int:
        """How many of a user's last items the network takes as input; 0: it scores pairs."""
        ...

    def keys(self, pairs: np.ndarray) -> np.ndarray:
        """Return user · items + item of each pair."""
        ...


@dataclass(frozen=True, kw_only=True)
class PairwiseLoss:
    """Compute the Bayesian personalised ranking loss, Σ −log σ(score(u, i) − score(u, j)), with j uniform among the items that the
    user did not choose (Rendle et al. 2009, section 4)."""

    seed: int
    chosen: np.ndarray
    """[pairs] int64, increasing and unique: user · items + item of each pair in the training data."""
    users: int
    items: int
    negatives: int

    def weight(self, batch: Batch) -> float:
        """Return the number of comparisons."""
        return batch.ids.shape[0] * self.negatives

    def loss_sum(self, model: Callable[[Inputs], Tensor], batch: Batch, epoch: int) -> Scalar:
        """Return the sum over the batch's comparisons."""
        pairs = batch.pixels
        drawn = self.draw(pairs[:, 0], batch.ids.numpy(), epoch)
        if isinstance(model, Factors):
            # ⟨p, qᵢ⟩ − ⟨p, qⱼ⟩ = ⟨p, qᵢ − qⱼ⟩ saves a third of the time.
            apart = model.item_vectors(pairs[:, 1:]) - model.item_vectors(drawn)
            margins = (model.user_vectors(pairs[:, 0]).unsqueeze(1) * apart).sum(-1)
        else:
            scores = model(torch.cat([pairs, drawn], dim=1))
            margins = scores[:, :1] - scores[:, 1:]
        return -F.logsigmoid(margins).sum()

    def draw(self, users: Int[Tensor, " batch"], ids: np.ndarray, epoch: int) -> Int[Tensor, "batch {self.negatives}"]:
        """Draw items uniformly among those that each user did not choose; for a user who chose all, return the last item.

        The result depends on the example and the epoch alone. The k-th remaining item is looked up where the remaining items of all
        users can be listed; otherwise it is k + the number of chosen items before it, those aⱼ with aⱼ − j ≤ k.
        """
        # In NumPy: one thread computes a few thousand numbers in less time than waking another takes.
        starts, left = self._starts
        who = users.cpu().numpy()[:, None]
        place = (uniform(self.seed, "negatives", epoch, ids, self.negatives) * left[who]).astype(np.int64)
        if self.users * self.items <= WRITTEN_OUT:
            found = self._others[who * self.items - starts[who] + place]
            found = np.where(left[who] > 0, found, self.items - 1)
        else:
            before = np.searchsorted(self._gaps, place + who * (self.items + 1), side="right") - starts[who]
            found = np.minimum(place + before, self.items - 1)
        return torch.from_numpy(found.astype(np.int64)).to(users.device)

    @cached_property
    def _starts(self) -> tuple[np.ndarray, np.ndarray]:
        """Return for each user where the pairs begin in `chosen`, and how many items remain, as float64."""
        starts = np.searchsorted(self.chosen, np.arange(self.users + 1) * self.items)
        return starts[:-1], (self.items - np.diff(starts)).astype(np.float64)

    @cached_property
    def _others(self) -> np.ndarray:
        """Return the remaining items of each user in order, as int32, and a final 0 that a user who chose all may read."""
        free = np.ones(self.users * self.items, dtype=bool)
        free[self.chosen] = False
        return np.append((np.flatnonzero(free) % self.items).astype(np.int32), np.int32(0))

    @cached_property
    def _gaps(self) -> np.ndarray:
        """Return user · (items + 1) + aⱼ − j of each pair, which increases too."""
        user, item = np.divmod(self.chosen, self.items)
        return user * (self.items + 1) + item - (np.arange(len(user)) - self._starts[0][user])


def _require_pairs(encoder: Interactions, name: str) -> None:
    """Raise a RecipeError for a network on sequences."""
    if encoder.length:
        raise RecipeError(
            "the network is trained on sequences of items, not on pairs of users and items",
            place="train.objective",
            found=name,
            expected="next_item",
            fix="remove train.objective",
        )


def bpr(encoder: Interactions, *, negatives: Annotated[int, Field(ge=1, le=1000)] = 1) -> Objective:
    """Build Bayesian personalised ranking.

    Args:
        negatives: the number of comparisons for each pair.
    """
    _require_pairs(encoder, "bpr")

    def bind(seed: int, device: torch.device) -> PairwiseLoss:
        keys = np.unique(encoder.keys(encoder.learned))
        sizes = {"users": len(encoder.users), "items": len(encoder.items)}
        return PairwiseLoss(seed=seed, chosen=keys, negatives=negatives, **sizes)

    return Objective(name="bpr", supervised=False, bind=bind)


@dataclass(frozen=True, kw_only=True)
class InBatchLoss:
    """Compute the cross entropy of each user's item among the items of the whole batch (Yi et al. 2019, section 3).

    A popular item is in more batches; log q, the logarithm of its share of the pairs, is subtracted from its score to correct for
    this (equation 6). The same item elsewhere in the batch does not count as a negative.
    """

    log_share: Float[Tensor, " items"]
    temperature: float

    def weight(self, batch: Batch) -> float:
        """Return the number of pairs."""
        return batch.ids.shape[0]

    def loss_sum(self, model: Callable[[Inputs], Tensor], batch: Batch, epoch: int) -> Scalar:
        """Return the sum over the batch's pairs.

        Raises:
            RecipeError: the network has no vectors to multiply.
        """
        if not isinstance(model, Factors):
            raise RecipeError(
                "in_batch compares vectors of users and items, and this network has none",
                place="train.objective",
                found="in_batch",
                expected="bpr, or model.backbone: factors or two_tower",
                fix="train.objective: bpr",
            )
        users, items = batch.pixels[:, 0], batch.pixels[:, 1]
        scores = model.user_vectors(users) @ model.item_vectors(items).T / self.temperature
        same = (items[:, None] == items[None]) & ~torch.eye(len(items), dtype=torch.bool, device=items.device)
        scores = (scores - self.log_share[items]).masked_fill(same, -torch.inf)
        return F.cross_entropy(scores, torch.arange(len(items), device=items.device), reduction="sum")


def in_batch(
    encoder: Interactions, *, temperature: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 1.0
) -> Objective:
    """Build a softmax over the items of the batch, corrected for their popularity."""
    _require_pairs(encoder, "in_batch")

    def bind(seed: int, device: torch.device) -> InBatchLoss:
        counts = np.bincount(encoder.learned[:, 1], minlength=len(encoder.items))
        share = torch.from_numpy(np.maximum(counts, 1) / len(encoder.learned)).float().to(device)
        return InBatchLoss(log_share=share.log(), temperature=temperature)

    return Objective(name="in_batch", supervised=False, bind=bind)


@dataclass(frozen=True, kw_only=True)
class NextItemLoss:
    """Compute the cross entropy of the next item at each position of a sequence, over all items or a uniform sample of negatives.

    Kang and McAuley 2018, section III-E; with all items as in Klenitskiy and Vasilev 2023, section 3.
    """

    seed: int
    items: int
    negatives: int | None

    def weight(self, batch: Batch) -> float:
        """Return the number of predicted items."""
        return int((batch.pixels[:, 1] > 0).sum())

    def loss_sum(self, model: Callable[[Inputs], Tensor], batch: Batch, epoch: int) -> Scalar:
        """Return the sum over all positions.

        Raises:
            RecipeError: the network is not one on sequences.
        """
        if not isinstance(model, NextItem):
            raise RecipeError(
                "next_item predicts what follows a sequence, and this network does not take sequences",
                place="train.objective",
                found="next_item",
                expected="bpr, or model.backbone: sasrec",
                fix="remove train.objective",
            )
        wanted = batch.pixels[:, 1]
        asked = wanted > 0
        found, wanted = model(batch.pixels)[asked], wanted[asked] - 1
        if self.negatives is None:
            return F.cross_entropy(found @ model.items().T, wanted, reduction="sum")
        # The batch's first example determines the sample.
        numbers = uniform(self.seed, "negatives", epoch, batch.ids[:1].numpy(), self.negatives)[0]
        drawn = torch.from_numpy((numbers * self.items).astype(np.int64)).clamp_(max=self.items - 1).to(wanted.device)
        scores = found @ model.items(drawn).T
        scores = scores.masked_fill(drawn[None] == wanted[:, None], -torch.inf)
        right = (found * model.items(wanted)).sum(1, keepdim=True)
        return F.cross_entropy(torch.cat([right, scores], 1), torch.zeros_like(wanted), reduction="sum")


def next_item(encoder: Interactions, *, negatives: Annotated[int, Field(ge=1, le=100_000)] | None = None) -> Objective:
    """Build the prediction of the next item.

    Args:
        negatives: the number of sampled negatives; None: all items.
    """

    def bind(seed: int, device: torch.device) -> NextItemLoss:
        return NextItemLoss(seed=seed, items=len(encoder.items), negatives=negatives)

    return Objective(name="next_item", supervised=False, bind=bind)


RANKINGS: dict[str, Callable[..., Objective]] = {"bpr": bpr, "in_batch": in_batch, "next_item": next_item}
