"""The training loop: for each batch take a step; then log, validate, save.

Every random number is a function of (seed, epoch, example, step). So the loop can stop after any step, and another
process that loads the checkpoint takes exactly the steps that this one would have taken.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from torch import nn

from tunewright.data.batches.batch import Batch, Examples
from tunewright.errors import Diverged
from tunewright.training.gradients import Position, StepLoss
from tunewright.training.sanity_checks import (
    LEARNED,
    LOOKED_AT,
    WARM,
    require_gradient,
    require_movement,
    same_loss,
    weights_digest,
)
from tunewright.training.state import State
from tunewright.training.step import TrainModule, take_step
from tunewright.training.steps import Steps

# A loss this many times as large as at the start has exploded: no healthy run comes near it.
EXPLODED = 1000.0


@dataclass(frozen=True, kw_only=True)
class Callbacks:
    """What the loop calls when something is due; each is a function, and the loop knows no more about it."""

    start_epoch: Callable[[int], None]
    """Puts every module in its right mode and every parameter in or out of training, for this epoch."""
    log_step: Callable[[State, float, float], None]
    """Gets the loss and the learning rate after a step."""
    end_epoch: Callable[[State, float], None]
    """Validates, selects the best weights, logs; may set `state.finished`."""
    save: Callable[[State], None]
    should_stop: Callable[[], bool]
    """True when the user or the system asked to stop; the loop saves and returns."""


@dataclass(frozen=True, kw_only=True)
class LoopConfig:
    """How long the loop runs, and how often it saves."""

    epochs: int
    save_every: int | None = None
    """Steps between checkpoints inside an epoch; None: only after each epoch."""


def train(
    module: TrainModule,
    batches: Steps,
    learning_rate_factor: Callable[[int], float],
    state: State,
    config: LoopConfig,
    callbacks: Callbacks,
) -> State:
    """Train from `state` until the last epoch, an early stop or a request to stop.

    Args:
        module: how a step is taken.
        learning_rate_factor: of each step, counted from 0; multiplies each group's `base_lr`.

    Raises:
        Diverged: the loss is not finite or exploded; nothing has been saved since it was healthy.
        NothingLearned: there is no gradient, no weight changes, or the loss never does.
    """
    started = time.perf_counter() - state.seconds
    while state.epoch < config.epochs and state.finished is None:
        callbacks.start_epoch(state.epoch)
        if state.weights is None:
            state.weights = weights_digest(module.parameters)
        for step_batches in batches.steps(state.epoch, start=state.step_in_epoch):
            at, factor = Position(state.epoch, state.step), learning_rate_factor(state.step)
            check = partial(_check_step, module, state, step_batches, batches)
            loss = take_step(module, step_batches, at, factor, check)
            if factor >= WARM:
                watch(state, module, loss.mean)
            state.count(loss)
            state.seconds = time.perf_counter() - started
            callbacks.log_step(state, loss.mean, module.learning_rate)
            if state.step == first_steps(batches) and state.warm_rate > 0:
                require_movement(state.weights, module.parameters, state.warm_rate, f"after step {state.step}")
            last = state.step_in_epoch == batches.steps_per_epoch
            if callbacks.should_stop() and not last:
                callbacks.save(state)
                return state
            if config.save_every and state.step % config.save_every == 0 and not last:
                callbacks.save(state)

        train_loss = state.loss_sum / (state.weight_sum or 1.0)
        state.epoch += 1
        callbacks.end_epoch(state, train_loss)
        end_if_still(state, module.parameters, train_loss)
        state.step_in_epoch, state.loss_sum, state.weight_sum, state.warm_rate = 0, 0.0, 0.0, 0.0
        if state.epoch == config.epochs and state.finished is None:
            state.finished = "all epochs done"
        state.seconds = time.perf_counter() - started
        callbacks.save(state)
        if callbacks.should_stop():
            break
    return state


def first_steps(batches: Steps) -> int:
    """Return the number of steps after which the gradients and the weights are looked at."""
    return min(LOOKED_AT, batches.steps_per_epoch)


def _check_step(module: TrainModule, state: State, step_batches: list[Batch], batches: Steps, loss: StepLoss) -> None:
    """Stop before the weights are updated where an update would be useless or harmful.

    Raises:
        NothingLearned: there is no gradient.
        Diverged: the loss is not finite or exploded.
    """
    if state.step == first_steps(batches) - 1 and not module.updates_in_backward:
        require_gradient(module.parameters, loss.mean, where(state))
    check_health(loss.mean, state, step_batches, batches.examples)


def watch(state: State, module: TrainModule, loss: float) -> None:
    """Count how often in a row the loss was the same, and end the training when that is often enough.

    Raises:
        NothingLearned: the loss has never been another one.
    """
    state.warm_rate = max(state.warm_rate, module.learning_rate)
    state.same_losses = state.same_losses + 1 if loss == state.last_loss else 1
    state.last_loss = loss
    reason = same_loss(state.same_losses, loss, loss == state.first_loss, where(state))
    if reason is not None and state.finished is None and is_thawed(module.parameters):
        state.finished = reason


def end_if_still(state: State, parameters: list[nn.Parameter], train_loss: float) -> None:
    """End the training after an epoch in which no weight has changed."""
    before, state.weights = state.weights, weights_digest(parameters)
    if state.weights == before and state.warm_rate > 0 and state.finished is None and is_thawed(parameters):
        learned = abs(train_loss) <= LEARNED
        reason = "the loss is zero" if learned else f"steps of {state.warm_rate:.3g} no longer change any"
        state.finished = f"no weight changed in epoch {state.epoch}: {reason}"


def is_thawed(parameters: list[nn.Parameter]) -> bool:
    """Return whether every parameter is trained in this epoch: otherwise the next epoch may change what this one did not."""
    return all(value.requires_grad for value in parameters)


def where(state: State) -> str:
    """Describe the place of the coming step."""
    return str(Position(state.epoch, state.step))


def check_health(loss: float, state: State, step_batches: list[Batch], examples: Examples) -> None:
    """Stop before a bad update.

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
