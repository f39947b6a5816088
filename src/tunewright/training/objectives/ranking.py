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

from tunewright.data.batches.batch import Batch
from tunewright.errors import RecipeError
from tunewright.models.recommendation.base import Factors
from tunewright.models.recommendation.sasrec import NextItem
from tunewright.random import uniform
from tunewright.training.objectives.base import Objective

# Of so many pairs of a user and an item those that are not known are written out, 4 bytes each.
WRITTEN_OUT = 2**26


@dataclass(frozen=True, kw_only=True)
class FromPairs:
    """The Bayesian personalised ranking loss, Σ −log σ(score(u, i) − score(u, j)), with j drawn evenly from the items that the
    user did not choose (Rendle et al. 2009, section 4)."""

    seed: int
    chosen: np.ndarray
    """[M] int64, rising, each once: user · I + item of each pair that is known from training."""
    users: int
    items: int
    negatives: int

    def weight(self, batch: Batch) -> float:
        """The number of comparisons."""
        return batch.ids.shape[0] * self.negatives

    def loss_sum(self, model: Callable[[Any], Tensor], batch: Batch, epoch: int) -> Tensor:
        """The sum over the batch's comparisons, a scalar."""
        pairs = batch.pixels
        drawn = self.draw(pairs[:, 0], batch.ids.numpy(), epoch)
        if isinstance(model, Factors):
            # ⟨p, qᵢ⟩ − ⟨p, qⱼ⟩ = ⟨p, qᵢ − qⱼ⟩: a third of the time less.
            apart = model.item_vectors(pairs[:, 1:]) - model.item_vectors(drawn)
            margins = (model.user_vectors(pairs[:, 0]).unsqueeze(1) * apart).sum(-1)
        else:
            scores = model(torch.cat([pairs, drawn], dim=1))
            margins = scores[:, :1] - scores[:, 1:]
        return -F.logsigmoid(margins).sum()

    def draw(self, users: Tensor, ids: np.ndarray, epoch: int) -> Tensor:
        """[B, negatives] items that the users did not choose, each as likely as any other; of one who chose all, the last.

        A function of the example and the epoch alone. The k-th of the n items that are left is looked up where the items that are left of
        all users can be written out; otherwise it is k + the number of chosen items before it, those aⱼ with aⱼ − j ≤ k.
        """
        # In NumPy: a few thousand numbers are soon done by one thread, and waking another takes longer than that.
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
        """[U] where each user's pairs begin among `chosen`, and [U] float64 how many items are left."""
        starts = np.searchsorted(self.chosen, np.arange(self.users + 1) * self.items)
        return starts[:-1], (self.items - np.diff(starts)).astype(np.float64)

    @cached_property
    def _others(self) -> np.ndarray:
        """[U · I − M] int32: the items that are left, user by user, each user's in their order; and 0 behind them, where one who chose all
        may look."""
        free = np.ones(self.users * self.items, dtype=bool)
        free[self.chosen] = False
        return np.append((np.flatnonzero(free) % self.items).astype(np.int32), np.int32(0))

    @cached_property
    def _gaps(self) -> np.ndarray:
        """[M]: user · (I + 1) + aⱼ − j, which rises too."""
        user, item = np.divmod(self.chosen, self.items)
        return user * (self.items + 1) + item - (np.arange(len(user)) - self._starts[0][user])


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
        keys = np.unique(encoder.keys(encoder.learned))
        sizes = {"users": len(encoder.users), "items": len(encoder.items)}
        return FromPairs(seed=seed, chosen=keys, negatives=negatives, **sizes)

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


def next_item(encoder: Any, *, negatives: Annotated[int, Field(ge=1, le=100_000)] | None = None) -> Objective:
    """What follows a sequence, among all items, or among so many others."""

    def bind(seed: int, device: torch.device) -> FromSequences:
        return FromSequences(seed=seed, items=len(encoder.items), negatives=negatives)

    return Objective(name="next_item", supervised=False, bind=bind)


RANKINGS: dict[str, Callable[..., Objective]] = {"bpr": bpr, "in_batch": in_batch, "next_item": next_item}
