"""The one optimiser step: gradient, penalty, clipping, update. The loop, a dry run and lr-find all take it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from tunewright.data.batches.batch import Batch
from tunewright.random import mix
from tunewright.training.distributed.dtensors import clip_gradients
from tunewright.training.gradients import GradientEstimator, Position, StepLoss
from tunewright.training.objectives.base import StepObjective


@dataclass(frozen=True, kw_only=True)
class TrainModule:
    """What a step needs besides its batches: the network, what is minimised, and how the weights are updated."""

    model: nn.Module
    objective: StepObjective
    optimizer: Optimizer
    gradient: GradientEstimator
    penalty: Callable[[], Tensor] | None = None
    """The regularisation term of the loss."""
    clip_norm: float | None = None
    """The largest norm of all gradients together."""
    seed: int | None = None
    """The seed of the network's own random numbers (dropout); None: it draws none."""
    updates_in_backward: bool = False
    """The optimiser updates each weight in the backward pass, and no gradient is left after it."""

    @cached_property
    def parameters(self) -> list[nn.Parameter]:
        """All parameters that are trained in some epoch."""
        return [parameter for group in self.optimizer.param_groups for parameter in group["params"]]

    @property
    def learning_rate(self) -> float:
        """The largest of all groups."""
        return max(group["lr"] for group in self.optimizer.param_groups)


def take_step(
    module: TrainModule,
    batches: Sequence[Batch],
    at: Position,
    factor: float,
    before_update: Callable[[StepLoss], None] = lambda loss: None,
) -> StepLoss:
    """Update the weights once; returns the loss before the update.

    Args:
        batches: the micro-batches of this process.
        factor: multiplies each group's `base_lr`.
        before_update: gets the loss once the gradient is there, before penalty, clipping and update; what it raises
            prevents the update.
    """
    if module.seed is not None:
        rank = module.gradient.rank
        seed_generators(mix(module.seed, "step", at.step, *(() if rank is None else (rank,))))
    set_learning_rate(module.optimizer, factor)
    for parameter in module.parameters:
        parameter.grad = None
    loss = module.gradient(module.model, batches, module.objective, module.parameters, at)
    before_update(loss)
    if module.penalty is not None:
        module.penalty().backward()
    if module.clip_norm is not None:
        clip_gradients(module.parameters, module.clip_norm)
    module.optimizer.step()
    return loss


def set_learning_rate(optimizer: Optimizer, factor: float) -> None:
    """Set each group's learning rate to `factor` times its base."""
    for group in optimizer.param_groups:
        group["lr"] = group["base_lr"] * factor


def seed_generators(seed: int) -> None:
    """As `torch.manual_seed`, which also keeps a note, with a stack trace, for each kind of accelerator that is not there."""
    torch.default_generator.manual_seed(seed)
    if torch.cuda.is_available():
        torch.cuda.manual_seed_all(seed)
    if torch.backends.mps.is_available():
        torch.mps.manual_seed(seed)
