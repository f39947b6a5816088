"""Train an encoder on pairs: similar features for two examples of one class, different features for two classes.

Tunstall et al. 2022, "Efficient few-shot learning without prompts" (SetFit), section 3: each of the N examples is paired with
R examples of its class and R of other classes, and the squared error of the cosine similarity to 1 or 0 is minimised.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Int
from torch import Tensor, nn
from torch.nn import functional as F

from tunewright.data.batches.batch import BaseExamples, Batch, Examples, Inputs
from tunewright.models.core.tap import Tap
from tunewright.random import uniform
from tunewright.training.objectives.base import Scalar

# R, in the whole training (Tunstall et al. 2022, section 4.1).
PAIRS = 20


def pairs_an_epoch(epochs: int) -> int:
    """Return the R of one epoch, so that all epochs together have PAIRS."""
    return max(1, round(PAIRS / epochs))


@dataclass(frozen=True, kw_only=True)
class PairExamples(BaseExamples):
    """Serve pairs as examples: a batch of B pairs has 2 B inputs, the first of each pair and then the second of each.

    Pair i belongs to the example i // (2 each). Its partner is a function of (seed, epoch, i): for even i it is drawn from the
    example's class (the example itself if there is no other), for odd i from the other classes.
    """

    examples: Examples
    classes: np.ndarray
    """[examples] class indices; at least two classes."""
    seed: int
    each: int
    """The number of pairs of each kind for an example in an epoch."""

    augmented: bool = True
    """Pairs change from epoch to epoch, so nothing computed from them is cached."""

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

    def batch(self, ids: Int[Tensor, " batch"], epoch: int | None = None) -> Batch:
        first, second = self.pairs(ids.numpy(), epoch or 0)
        both = torch.from_numpy(np.concatenate([first, second]))
        found = self.examples.batch(both, epoch)
        same = torch.from_numpy(self.classes[first] == self.classes[second])
        device = next(iter(found.inputs.values())).device if isinstance(found.inputs, dict) else found.inputs.device
        return Batch(found.inputs, same.to(device), ids)

    def pairs(self, ids: np.ndarray, epoch: int) -> tuple[np.ndarray, np.ndarray]:
        """Return the positions of both examples of each pair, [batch] and [batch]."""
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
class ContrastiveLoss:
    """Compute Σ (cos(u, v) − same)² over pairs, where u and v are inputs of `layer`, the network's last."""

    layer: nn.Module

    def weight(self, batch: Batch) -> float:
        """Return the number of pairs."""
        return batch.ids.shape[0]

    def loss_sum(self, model: Callable[[Inputs], Tensor], batch: Batch, epoch: int) -> Scalar:
        """Return the sum of the pairs' losses."""
        assert batch.target is not None
        with Tap(self.layer) as tap:
            model(batch.inputs)
        first, second = tap.taken().float().chunk(2)
        return F.mse_loss(F.cosine_similarity(first, second), batch.target.float(), reduction="sum")
