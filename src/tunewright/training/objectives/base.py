"""What is minimised: a sum over examples and their count, so that accumulated and divided batches weigh alike."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from tunewright.data.batches.batch import Batch, Examples
from tunewright.errors import RecipeError


class StepObjective(Protocol):
    """What is minimised: a sum over examples, and what to divide that sum by."""

    def weight(self, batch: Batch) -> float: ...

    def loss_sum(self, model: Callable[[Any], Tensor], batch: Batch, epoch: int) -> Tensor: ...


# (outputs, target [B], class weights [K] or None, label smoothing) → the sum of the losses, a scalar.
LossSum = Callable[[Tensor, Tensor, Tensor | None, float], Tensor]


@dataclass(frozen=True, kw_only=True)
class Objective:
    """What the recipe asks for, before it is tied to a seed and a device."""

    name: str
    supervised: bool
    """Whether it needs labels."""
    bind: Callable[[int, torch.device], StepObjective]
    """(seed, device) → what the training loop minimises."""
    refer: Callable[[nn.Module, Examples], Tensor] | None = None
    """(network, examples) → what the network says of each example before it learns, which the loss is held against; None:
    nothing is."""


def wrong_size(size: int, expected: str) -> RecipeError:
    return RecipeError(
        "the network's output has another size than the objective asks for",
        place="model.head",
        found=f"{size} outputs",
        expected=expected,
        fix="end the head with {dense: auto}",
    )
