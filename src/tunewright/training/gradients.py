"""How a step's gradient is estimated from its micro-batches: exactly, or summed over several processes.

A third estimator, clipped and noised, is `training/privacy/dp_sgd.py`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from torch import Tensor, nn

from tunewright.data.batches.batch import Batch
from tunewright.models.core.meta_weights import is_meta
from tunewright.training.distributed.process_group import ProcessGroup
from tunewright.training.objectives.base import StepObjective
from tunewright.training.sanity_checks import require_connected


@dataclass(frozen=True)
class Position:
    """The place of a step in its training."""

    epoch: int
    """Counted from 0."""
    step: int
    """Counted from 0, over all epochs."""

    def __str__(self) -> str:
        return f"epoch {self.epoch + 1}, step {self.step + 1}"


@dataclass(frozen=True, kw_only=True)
class StepLoss:
    """The loss of a step over all examples of its micro-batches, in all processes."""

    total: float
    """The sum of the losses; NaN for a network without memory."""
    weight: float
    """What the sum is divided by: examples or tokens."""
    examples: int

    @property
    def mean(self) -> float:
        return self.total / self.weight


class GradientEstimator(Protocol):
    """Leaves a step's gradient in the `grad` of each parameter, which is None before."""

    @property
    def rank(self) -> int | None:
        """This process among those that each take a part of every batch; None: it takes all of it."""
        ...

    def __call__(
        self,
        model: nn.Module,
        batches: Sequence[Batch],
        objective: StepObjective,
        parameters: list[nn.Parameter],
        at: Position,
    ) -> StepLoss: ...


@dataclass(frozen=True)
class ExactGradient:
    """The gradient of the weighted mean loss: accumulating uneven micro-batches equals one large batch."""

    rank: int | None = None

    def __call__(
        self,
        model: nn.Module,
        batches: Sequence[Batch],
        objective: StepObjective,
        parameters: list[nn.Parameter],
        at: Position,
    ) -> StepLoss:
        weight, examples = batch_totals(batches, objective)
        weight = weight or 1.0
        return StepLoss(total=backward(model, batches, objective, weight, at), weight=weight, examples=examples)


@dataclass(frozen=True)
class AllReducedGradient:
    """The exact gradient of a batch that is distributed over several processes; each gets the sum.

    Gradients of sharded parameters are summed in the backward pass (FSDP), so only weights and losses are left to sum.
    """

    group: ProcessGroup

    @property
    def rank(self) -> int:
        return self.group.rank

    def __call__(
        self,
        model: nn.Module,
        batches: Sequence[Batch],
        objective: StepObjective,
        parameters: list[nn.Parameter],
        at: Position,
    ) -> StepLoss:
        weight, examples = batch_totals(batches, objective)
        weight, count = self.group.all_reduce_sum(weight, examples)
        weight = weight or 1.0
        total = backward(model, batches, objective, weight, at)
        self.group.all_reduce_gradients(parameters)
        (total,) = self.group.all_reduce_sum(total)
        return StepLoss(total=total, weight=weight, examples=int(count))


def batch_totals(batches: Sequence[Batch], objective: StepObjective) -> tuple[float, int]:
    """Return the weight and the number of examples of a step's micro-batches; stand-ins do not count."""
    weight = float(sum(objective.weight(batch) for batch in batches))
    return weight, sum(len(batch.ids) for batch in batches if batch.counts)


def backward(
    model: nn.Module, batches: Sequence[Batch], objective: StepObjective, weight: float, at: Position
) -> float:
    """Accumulate the gradient of the loss divided by `weight`; returns the sum of the losses.

    Raises:
        NothingLearned: the loss does not depend on anything that is trained.
    """
    total = 0.0
    for batch in batches:
        loss = objective.loss_sum(model, batch, at.epoch)
        total += as_float(loss)
        require_connected(loss, str(at))
        (loss / weight).backward()
    return total


def as_float(loss: Tensor) -> float:
    """Return a scalar's value; NaN where it has no memory, as in a dry run."""
    return math.nan if is_meta(loss) else float(loss.detach())
