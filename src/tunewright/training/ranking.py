"""What recommenders minimise: the items that a user chose are to stand above those that the user did not."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any

import numpy as np
import torch
from pydantic import Field
from torch import Tensor
from torch.nn import functional as F

from tunewright.data.batching import Batch
from tunewright.random import uniform
from tunewright.training.objectives import Objective

# An item that the user chose is drawn again, so many times at most.
TRIES = 8


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
        numbers = uniform(self.seed, "negatives", epoch, ids, self.negatives * TRIES)
        drawn = torch.from_numpy((numbers * self.items).astype(np.int64)).clamp_(max=self.items - 1).to(users.device)
        drawn = drawn.view(len(ids), self.negatives, TRIES)
        keys = users[:, None, None] * self.items + drawn
        place = torch.searchsorted(self.chosen, keys).clamp_(max=len(self.chosen) - 1)
        taken = self.chosen[place] == keys
        first = (~taken).int().argmax(-1, keepdim=True)
        return drawn.gather(-1, first).squeeze(-1)


def bpr(encoder: Any, *, negatives: Annotated[int, Field(ge=1, le=1000)] = 1) -> Objective:
    """Bayesian personalised ranking with so many comparisons for each pair."""

    def bind(seed: int, device: torch.device) -> FromPairs:
        keys = torch.from_numpy(np.sort(encoder.keys(encoder.learned))).to(device)
        return FromPairs(seed=seed, chosen=keys, items=len(encoder.items), negatives=negatives)

    return Objective(name="bpr", supervised=False, bind=bind)


RANKINGS: dict[str, Callable[..., Objective]] = {"bpr": bpr}
