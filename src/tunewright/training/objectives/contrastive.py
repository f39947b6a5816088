"""Pairs of examples: the encoder learns to give two of one class like features, and two of different classes unlike ones.

Tunstall et al. 2022, "Efficient few-shot learning without prompts" (SetFit), section 3: from N examples come many times
as many pairs, each example is paired with R of its own class and R of others, and the cosine of the two features is to
be 1 or 0, by the squared error.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tunewright.data.batches.batch import Batch, Examples
from tunewright.models.core.tap import Tap
from tunewright.random import uniform

# R, over the whole training (Tunstall et al. 2022, section 4.1).
PAIRS = 20


def pairs_an_epoch(epochs: int) -> int:
    """R for one epoch, of each kind, so that all epochs together come to PAIRS."""
    return max(1, round(PAIRS / epochs))


@dataclass(frozen=True, kw_only=True)
class PairExamples:
    """Pairs as examples: a batch of B pairs has 2 B inputs, the first of each pair and then the second of each.

    Pair i belongs to the example i // (2 each), whose partner is drawn anew in each epoch by (seed, epoch, i): for even i
    from its own class (itself where it is alone there), for odd i from the others.
    """

    examples: Examples
    classes: np.ndarray
    """[N] class indices; at least two classes."""
    seed: int
    each: int
    """Pairs of each kind that an example begins in an epoch."""

    augmented: bool = True
    """What a pair holds changes from epoch to epoch, so nothing computed from it is kept."""

    @property
    def rows(self) -> Tensor:
        return self.examples.rows[torch.arange(len(self)) // (2 * self.each)]

    @property
    def target(self) -> None:
        return None

    @property
    def lengths(self) -> None:
        return None

    def __len__(self) -> int:
        return len(self.examples) * 2 * self.each

    def to(self, device: torch.device) -> PairExamples:
        return PairExamples(examples=self.examples.to(device), classes=self.classes, seed=self.seed, each=self.each)

    def batch(self, ids: Tensor, epoch: int | None = None) -> Batch:
        first, second = self.pairs(ids.numpy(), epoch or 0)
        both = torch.from_numpy(np.concatenate([first, second]))
        found = self.examples.batch(both, epoch)
        same = torch.from_numpy(self.classes[first] == self.classes[second])
        device = next(iter(found.inputs.values())).device if isinstance(found.inputs, dict) else found.inputs.device
        return Batch(found.inputs, same.to(device), ids)

    def pairs(self, ids: np.ndarray, epoch: int) -> tuple[np.ndarray, np.ndarray]:
        """The positions of both examples of each pair, [B] and [B]."""
        first = ids // (2 * self.each)
        drawn = uniform(self.seed, "pairs", epoch, ids, 1)[:, 0]
        second = np.empty_like(first)
        for index, (example, share) in enumerate(zip(first, drawn)):
            own = self.classes == self.classes[example]
            if ids[index] % 2:
                candidates = np.flatnonzero(~own)
            else:
                candidates = np.flatnonzero(own)
                candidates = candidates[candidates != example] if len(candidates) > 1 else candidates
            second[index] = candidates[int(share * len(candidates))]
        return first, second


@dataclass(frozen=True, kw_only=True)
class FromPairs:
    """Σ (cos(u, v) − same)² over pairs, with u and v what flows into `layer`, the network's last."""

    layer: nn.Module

    def weight(self, batch: Batch) -> float:
        """The number of pairs."""
        return batch.ids.shape[0]

    def loss_sum(self, model: Callable[[Any], Tensor], batch: Batch, epoch: int) -> Tensor:
        """The sum of the pairs' losses, a scalar."""
        assert batch.target is not None
        with Tap(self.layer) as tap:
            model(batch.inputs)
        first, second = tap.taken().float().chunk(2)
        return F.mse_loss(F.cosine_similarity(first, second), batch.target.float(), reduction="sum")
