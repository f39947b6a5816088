"""The training loop: for each batch, forward, objective, backward, clip, step; then log, validate, save.

Every random number is a function of (seed, epoch, example, step). So the loop can stop after any step, and another
process that loads the checkpoint takes exactly the steps that this one would have taken.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from tunewright.data.batches.batch import Batch, Examples
from tunewright.errors import Diverged
from tunewright.random import mix
from tunewright.training.distributed.dtensors import clip_gradients
from tunewright.training.distributed.process_group import ProcessGroup
from tunewright.training.objectives.base import StepObjective
from tunewright.training.sanity_checks import (
    LEARNED,
    LOOKED_AT,
    WARM,
    require_connected,
    require_gradient,
    require_movement,
    same_loss,
    weights_digest,
)
from tunewright.training.state import State
from tunewright.training.steps import Steps

# A loss this many times as large as at the start has exploded: no healthy run comes near it.
EXPLODED = 1000.0


@dataclass(frozen=True, kw_only=True)
class Callbacks:
    """What the loop calls when something is due; each is a function, and the loop knows no more about it."""

    start_epoch: Callable[[int], None]
    """Puts every module in its right mode and every parameter in or out of training, for this epoch."""
    log_step: Callable[[State, float, float], None]
    """Is told the loss and the learning rate after a step."""
    end_epoch: Callable[[State, float], None]
    """Validates, selects the best weights, logs; may set `state.finished`."""
    save: Callable[[State], None]
    should_stop: Callable[[], bool]
    """True when the user or the system asked to stop; the loop saves and returns."""


# (model, micro-batches, objective, parameters, state) → the sum of the losses; leaves the gradient in each parameter.
Gradient = Callable[[nn.Module, list[Batch], StepObjective, list[nn.Parameter], State], float]


@dataclass(frozen=True, kw_only=True)
class LoopConfig:
    """The numbers of the loop."""

    epochs: int
    seed: int
    clip_norm: float | None = None
    save_every: int | None = None
    """Steps between checkpoints inside an epoch; None: only after each epoch."""
    in_backward: bool = False
    """Each step is taken in the backward pass, and no gradient is left after it."""
    stochastic: bool = False
    """The network draws random numbers itself (dropout)."""


def train(
    model: nn.Module,
    batches: Steps,
    objective: StepObjective,
    optimizer: Optimizer,
    learning_rate_factor: Callable[[int], float],
    penalty: Callable[[], Tensor] | None,
    state: State,
    settings: LoopConfig,
    around: Callbacks,
    private: Gradient | None = None,
    together: ProcessGroup | None = None,
) -> State:
    """Train from `state` until the last epoch, an early stop or a request to stop.

    `learning_rate_factor(step)` multiplies each group's `base_lr`. The loss of a step is the weighted mean over all
    examples of its micro-batches, so accumulation over uneven micro-batches equals one large batch. With `private`, gradients
    are what it makes of the batches instead. With `together`, the batches are this process's part, and weights, losses and gradients are
    added up over all processes.

    Raises:
        Diverged: the loss is not finite or exploded; nothing has been saved since it was healthy.
        NothingLearned: there is no gradient, no weight changes, or the loss never does.
    """
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    started = time.perf_counter() - state.seconds
    while state.epoch < settings.epochs and state.finished is None:
        around.start_epoch(state.epoch)
        look = min(LOOKED_AT, batches.steps_per_epoch)
        if state.weights is None:
            state.weights = weights_digest(parameters)
        for step_batches in batches.steps(state.epoch, start=state.step_in_epoch):
            if settings.stochastic:
                seed_generators(mix(settings.seed, "step", state.step, *([together.rank] if together else [])))
            factor = learning_rate_factor(state.step)
            rate = set_learning_rate(optimizer, factor)
            weight = float(sum(objective.weight(batch) for batch in step_batches))
            count = sum(len(batch.ids) for batch in step_batches if batch.counts)
            if together is not None:
                weight, count = together.all_reduce_sum(weight, count)
            weight = weight or 1.0  # a private step may be empty
            for parameter in parameters:
                parameter.grad = None
            if private is not None:
                loss_sum = private(model, step_batches, objective, parameters, state)
            else:
                loss_sum = 0.0
                for batch in step_batches:
                    loss = objective.loss_sum(model, batch, state.epoch)
                    loss_sum += float(loss.detach())
                    require_connected(loss, where(state))
                    (loss / weight).backward()
            if together is not None:
                together.all_reduce_gradients(parameters)
                (loss_sum,) = together.all_reduce_sum(loss_sum)
            if state.step == look - 1 and not settings.in_backward:
                require_gradient(parameters, loss_sum / weight, where(state))
            if penalty is not None:
                penalty().backward()
            check_health(loss_sum / weight, state, step_batches, batches.examples)
            if settings.clip_norm is not None:
                clip_gradients(parameters, settings.clip_norm)
            optimizer.step()
            if factor >= WARM:
                watch(state, parameters, loss_sum / weight, rate)

            state.step += 1
            state.step_in_epoch += 1
            state.loss_sum += loss_sum
            state.weight_sum += weight
            state.examples += int(count)
            state.seconds = time.perf_counter() - started
            around.log_step(state, loss_sum / weight, rate)
            if state.step == look and state.warm_rate > 0:
                require_movement(state.weights, parameters, state.warm_rate, f"after step {state.step}")
            last = state.step_in_epoch == batches.steps_per_epoch
            if around.should_stop() and not last:
                around.save(state)
                return state
            if settings.save_every and state.step % settings.save_every == 0 and not last:
                around.save(state)

        train_loss = state.loss_sum / (state.weight_sum or 1.0)
        state.epoch += 1
        around.end_epoch(state, train_loss)
        end_if_still(state, parameters, train_loss)
        state.step_in_epoch, state.loss_sum, state.weight_sum, state.warm_rate = 0, 0.0, 0.0, 0.0
        if state.epoch == settings.epochs and state.finished is None:
            state.finished = "all epochs done"
        state.seconds = time.perf_counter() - started
        around.save(state)
        if around.should_stop():
            break
    return state


def seed_generators(seed: int) -> None:
    """As `torch.manual_seed`, which also keeps a note, with a stack trace, for each kind of accelerator that is not there."""
    torch.default_generator.manual_seed(seed)
    if torch.cuda.is_available():
        torch.cuda.manual_seed_all(seed)
    if torch.backends.mps.is_available():
        torch.mps.manual_seed(seed)


def watch(state: State, parameters: list[nn.Parameter], loss: float, rate: float) -> None:
    """Count how often in a row the loss was the same, and end the training when that is often enough.

    Raises:
        NothingLearned: the loss has never been another one.
    """
    state.warm_rate = max(state.warm_rate, rate)
    state.same_losses = state.same_losses + 1 if loss == state.last_loss else 1
    state.last_loss = loss
    reason = same_loss(state.same_losses, loss, loss == state.first_loss, where(state))
    if reason is not None and state.finished is None and is_thawed(parameters):
        state.finished = reason


def end_if_still(state: State, parameters: list[nn.Parameter], train_loss: float) -> None:
    """End the training after an epoch in which no weight has changed."""
    before, state.weights = state.weights, weights_digest(parameters)
    if state.weights == before and state.warm_rate > 0 and state.finished is None and is_thawed(parameters):
        learned = abs(train_loss) <= LEARNED
        reason = "the loss is zero" if learned else f"steps of {state.warm_rate:.3g} change none any more"
        state.finished = f"no weight changed in epoch {state.epoch}: {reason}"


def is_thawed(parameters: list[nn.Parameter]) -> bool:
    """Whether all that is ever trained is trained now: otherwise the next epoch may move what this one did not."""
    return all(value.requires_grad for value in parameters)


def where(state: State) -> str:
    """The place of the coming step, for people."""
    return f"epoch {state.epoch + 1}, step {state.step + 1}"


def set_learning_rate(optimizer: Optimizer, factor: float) -> float:
    """Set each group's learning rate to `factor` times its base; returns the largest."""
    for group in optimizer.param_groups:
        group["lr"] = group["base_lr"] * factor
    return max(group["lr"] for group in optimizer.param_groups)


def check_health(loss: float, state: State, step_batches: list[Batch], examples: Examples) -> None:
    """Stop before a bad step is taken.

    Raises:
        Diverged: names the epoch, the step and the rows of the batch in the source.
    """
    if state.first_loss is None and math.isfinite(loss):
        state.first_loss = loss
    limit = EXPLODED * max(1.0, state.first_loss or 1.0)
    if math.isfinite(loss) and loss <= limit:
        return
    rows = examples.rows
    numbers = [int(rows[example]) for batch in step_batches for example in batch.ids]
    shown = ", ".join(map(str, numbers[:8])) + (", …" if len(numbers) > 8 else "")
    raise Diverged(
        "the loss is not finite" if not math.isfinite(loss) else "the loss exploded",
        place=f"{where(state)}, rows {shown} of the data",
        found=f"a loss of {loss:.6g}",
        expected=f"a finite loss below {limit:.6g}",
        fix="lower train.lr, set train.clip_norm: 1.0, or look at these rows; the last good checkpoint is kept",
    )
