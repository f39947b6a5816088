"""What recommenders minimise: the items that a user chose are to stand above those that the user did not."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Annotated, Any

import numpy as np
import torch
from pydantic import Field
from torch import Tensor
from torch.nn import functional as F

from tunewright.data.batching import Batch
from tunewright.errors import RecipeError
from tunewright.models.recommender import Factors
from tunewright.models.sasrec import NextItem
from tunewright.random import uniform
from tunewright.training.objectives import Objective

# An item that the user chose is drawn again, so many times at most.
TRIES = 8
# A byte for each possible pair, where there are no more than these.
MOST_PAIRS = 2**27


@dataclass(frozen=True, kw_only=True)
class FromPairs:
    """The Bayesian personalised ranking loss, Σ −log σ(score(u, i) − score(u, j)), with j drawn evenly from the items that the
    user did not choose (Rendle et al. 2009, section 4)."""

    seed: int
    chosen: Tensor
    """[M] int64, rising: user · I + item of each pair that is known from training."""
    items: int
    negatives: int

    def weight(self, batch: Batch) -> float:
        """The number of comparisons."""
        return batch.ids.shape[0] * self.negatives

    def loss_sum(self, model: Callable[[Any], Tensor], batch: Batch, epoch: int) -> Tensor:
        """The sum over the batch's comparisons, a scalar."""
        pairs = batch.pixels
        drawn = self.draw(pairs[:, 0], batch.ids.numpy(), epoch)
        scores = model(torch.cat([pairs, drawn], dim=1))
        return -F.logsigmoid(scores[:, :1] - scores[:, 1:]).sum()

    def draw(self, users: Tensor, ids: np.ndarray, epoch: int) -> Tensor:
        """[B, negatives] items, none of which the user chose, as far as a few tries find one."""
        drawn = self._items(ids, epoch, "negatives", 1)[..., 0]
        taken = self._chose(users[:, None], drawn)
        rows = taken.any(1).nonzero()[:, 0]
        if len(rows):
            others = self._items(ids[rows.cpu().numpy()], epoch, "other negatives", TRIES)
            free = ~self._chose(users[rows, None, None], others)
            # The first that is free; where none is, the last.
            first = torch.where(free.any(-1), free.int().argmax(-1), TRIES - 1).unsqueeze(-1)
            drawn[rows] = torch.where(taken[rows], others.gather(-1, first).squeeze(-1), drawn[rows])
        return drawn

    def _items(self, ids: np.ndarray, epoch: int, purpose: str, tries: int) -> Tensor:
        """[N, negatives, tries] items, a function of the example and the epoch alone."""
        numbers = uniform(self.seed, purpose, epoch, ids, self.negatives * tries)
        drawn = torch.from_numpy((numbers * self.items).astype(np.int64)).clamp_(max=self.items - 1)
        return drawn.to(self.chosen.device).view(len(ids), self.negatives, tries)

    def _chose(self, users: Tensor, items: Tensor) -> Tensor:
        """Whether these are pairs that are known; users and items of shapes that fit."""
        keys = users * self.items + items
        if self.table is not None:
            return self.table[keys]
        place = torch.searchsorted(self.chosen, keys).clamp_(max=len(self.chosen) - 1)
        return self.chosen[place] == keys

    @cached_property
    def table(self) -> Tensor | None:
        """[U · I] whether each pair is known, where that is a few million; None: they are looked up among the keys."""
        size = (int(self.chosen[-1]) // self.items + 1) * self.items
        if size > MOST_PAIRS:
            return None
        found = torch.zeros(size, dtype=torch.bool, device=self.chosen.device)
        found[self.chosen] = True
        return found


def _require_pairs(encoder: Any, name: str) -> None:
    """Raises RecipeError when the network looks at sequences."""
    if encoder.length:
        raise RecipeError(
            "the network learns from what followed what, and not from pairs of users and items",
            place="train.objective",
            found=name,
            expected="next_item",
            fix="leave train.objective out",
        )


def bpr(encoder: Any, *, negatives: Annotated[int, Field(ge=1, le=1000)] = 1) -> Objective:
    """Bayesian personalised ranking with so many comparisons for each pair."""

    _require_pairs(encoder, "bpr")

    def bind(seed: int, device: torch.device) -> FromPairs:
        keys = torch.from_numpy(np.sort(encoder.keys(encoder.learned))).to(device)
        return FromPairs(seed=seed, chosen=keys, items=len(encoder.items), negatives=negatives)

    return Objective(name="bpr", supervised=False, bind=bind)


@dataclass(frozen=True, kw_only=True)
class FromOthersInBatch:
    """The cross entropy of naming each user's item among those of the whole batch (Yi et al. 2019, section 3).

    A popular item stands in a batch more often; log q, the logarithm of its share of the pairs, is taken from its score so
    that this does not count against it (equation 6). The same item elsewhere in the batch is not held against a user.
    """

    log_share: Tensor
    """[I]."""
    temperature: float

    def weight(self, batch: Batch) -> float:
        """The number of pairs."""
        return batch.ids.shape[0]

    def loss_sum(self, model: Callable[[Any], Tensor], batch: Batch, epoch: int) -> Tensor:
        """The sum over the batch's pairs, a scalar. Raises RecipeError when the network has no vectors to multiply."""
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


def in_batch(encoder: Any, *, temperature: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 1.0) -> Objective:
    """A softmax over the items of the batch, corrected for their popularity."""

    _require_pairs(encoder, "in_batch")

    def bind(seed: int, device: torch.device) -> FromOthersInBatch:
        counts = np.bincount(encoder.learned[:, 1], minlength=len(encoder.items))
        share = torch.from_numpy(np.maximum(counts, 1) / len(encoder.learned)).float().to(device)
        return FromOthersInBatch(log_share=share.log(), temperature=temperature)

    return Objective(name="in_batch", supervised=False, bind=bind)


@dataclass(frozen=True, kw_only=True)
class FromSequences:
    """The cross entropy of the item that followed, at each place of a sequence, over all items, or over some that are drawn evenly
    with those that are wanted in the batch (Kang and McAuley 2018, section III-E; with all items as in Klenitskiy and Vasilev
    2023, section 3)."""

    seed: int
    items: int
    negatives: int | None

    def weight(self, batch: Batch) -> float:
        """The number of items that are asked for."""
        return int((batch.pixels[:, 1] > 0).sum())

    def loss_sum(self, model: Callable[[Any], Tensor], batch: Batch, epoch: int) -> Tensor:
        """The sum over all places, a scalar. Raises RecipeError when the network looks at no sequences."""
        if not isinstance(model, NextItem):
            raise RecipeError(
                "next_item asks what follows a sequence, and this network looks at none",
                place="train.objective",
                found="next_item",
                expected="bpr, or model.backbone: sasrec",
                fix="leave train.objective out",
            )
        wanted = batch.pixels[:, 1]
        asked = wanted > 0
        found, wanted = model(batch.pixels)[asked], wanted[asked] - 1
        if self.negatives is None:
            return F.cross_entropy(found @ model.items().T, wanted, reduction="sum")
        # The batch's first example names the draw.
        numbers = uniform(self.seed, "negatives", epoch, batch.ids[:1].numpy(), self.negatives)[0]
        drawn = torch.from_numpy((numbers * self.items).astype(np.int64)).clamp_(max=self.items - 1).to(wanted.device)
        scores = found @ model.items(drawn).T
        scores = scores.masked_fill(drawn[None] == wanted[:, None], -torch.inf)
        right = (found * model.items(wanted)).sum(1, keepdim=True)
        return F.cross_entropy(torch.cat([right, scores], 1), torch.zeros_like(wanted), reduction="sum")


def next_item(encoder: Any, *, negatives: Annotated[int, Field(ge=1)] | None = None) -> Objective:
    """What follows a sequence, among all items, or among so many others."""

    def bind(seed: int, device: torch.device) -> FromSequences:
        return FromSequences(seed=seed, items=len(encoder.items), negatives=negatives)

    return Objective(name="next_item", supervised=False, bind=bind)


RANKINGS: dict[str, Callable[..., Objective]] = {"bpr": bpr, "in_batch": in_batch, "next_item": next_item}
