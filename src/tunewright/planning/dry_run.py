"""Some steps of a stage's training, followed operation by operation: on a network without numbers, or on a real one.

Where examples differ in length, the step whose batches are largest says what memory is needed, one of the usual size what time is.
"""

from __future__ import annotations

import itertools
import math
import time
from collections import Counter
from collections.abc import Callable, Generator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, replace
from statistics import median_high
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves

from tunewright.console import Console
from tunewright.data.batches.batch import Batch, Examples
from tunewright.data.batches.sampler import EVALUATION_BATCH, in_order
from tunewright.hardware.memory_tracer import Tracer
from tunewright.models.core.network import evaluating
from tunewright.models.frozen_prefix import outputs_of
from tunewright.models.recommendation.embedding_table import has_sparse_gradients
from tunewright.pipeline.build.parts import StageParts
from tunewright.pipeline.device import small_numbers_as_zero, threads
from tunewright.pipeline.session.memory import LARGE, forget_peak, peak_memory, weight_bytes
from tunewright.pipeline.session.session import Session, open_session
from tunewright.pipeline.strategies.private import dry_run_gradient, steps_per_epoch
from tunewright.training import freezing
from tunewright.training.gradients import ExactGradient, GradientEstimator, Position, StepLoss
from tunewright.training.objectives.base import StepObjective
from tunewright.training.step import set_learning_rate, take_step

# So many steps of an epoch are looked through for the largest; reading is timed on so many.
LOOKED_THROUGH, READ = 1000, 5
# Steps are timed after a second, and after so many of them or another second: until then a step can take half as long again.
WARM_SECONDS, WARM_STEPS = 1.0, 20
# Taken together with what is read for them, steps may take so many times as long.
READING = 2.0


@dataclass(frozen=True, kw_only=True)
class DryRun:
    """What was seen."""

    session: Session
    usual: Tracer
    """A step of the usual size."""
    largest: Tracer
    """The step that takes the most memory; the same one where all are alike."""
    frozen: tuple[Tracer, float] | None
    """Computing the frozen part of a batch, and how often that is done in all; None: nothing is kept."""
    validation: tuple[Tracer, float] | None
    """A pass over validation examples without gradients, and how many such passes an epoch has."""
    steps: int
    """In all epochs."""
    reading: float
    """Seconds to read the batches of a step."""
    sizes: list[int]
    """Of each step of the first epoch, as `Batches.sizes` has them."""
    scale: float
    """By what the time of `usual` is to be multiplied for a step of the mean size."""

    @property
    def most(self) -> Tracer:
        """What takes the most memory."""
        others = [part[0] for part in (self.frozen, self.validation) if part is not None]
        return max([self.largest, *others], key=lambda tracer: tracer.most)


@dataclass(frozen=True, kw_only=True)
class Timed:
    """Real steps that were taken."""

    seconds: list[float]
    """Of each, reading not included."""
    process: int | None
    """Bytes that the process held at most meanwhile; None: the system does not say."""
    lengths: int
    """How many sizes the steps had."""
    others: bool
    """Whether a batch went through the frozen part and through validation, too."""


def run_dry(parts: StageParts, console: Console, session: Session | None = None) -> DryRun:
    """Follow a stage's steps; its network and optimiser are of no more use for a training.

    Args:
        ready: what `open_session` made; None: it is made here.
    """
    recipe = parts.recipe
    session = session or open_session(parts, None, console)
    freezing.start_epoch(session.plans, recipe.train.epochs - 1)  # everything that ever moves
    every = session.batches.sizes(0)
    sizes = every[:LOOKED_THROUGH]
    mean = sum(sizes) / len(sizes)
    usual = min(range(len(sizes)), key=lambda step: abs(sizes[step] - mean))
    largest = _largest(sizes)
    with threads(session.threads), small_numbers_as_zero():
        _remember(session)
        with dry_run_gradient(session) as gradient:
            first = traced_step(session, usual, gradient)
            second = first if sizes[largest] == sizes[usual] else traced_step(session, largest, gradient)
        return DryRun(
            session=session,
            usual=first,
            largest=second,
            frozen=_frozen(session, parts),
            validation=_validation(session, first),
            steps=recipe.train.epochs * steps_per_epoch(session),
            reading=_reading(session),
            sizes=every,
            scale=mean / sizes[usual],
        )


def _largest(sizes: list[int]) -> int:
    """The step, of those that are looked through, whose batches are largest."""
    return max(range(min(len(sizes), LOOKED_THROUGH)), key=lambda step: sizes[step])


@dataclass(frozen=True)
class TracedObjective:
    """An objective that tells a tracer in which phase of a step it is."""

    objective: StepObjective
    tracer: Tracer

    def weight(self, batch: Batch) -> float:
        return self.objective.weight(batch)

    def loss_sum(self, model: Callable[[Any], Tensor], batch: Batch, epoch: int) -> Tensor:
        self.tracer.phase = "activations"
        loss = self.objective.loss_sum(model, batch, epoch)
        self.tracer.phase = "backward pass"
        return loss


def traced_step(session: Session, step: int, gradient: GradientEstimator) -> Tracer:
    """One step of epoch 0, the optimiser's memory already there."""
    batches = next(session.batches.steps(0, start=step))
    tracer = Tracer(_already(session, [batch.inputs for batch in batches] + [batch.target for batch in batches]))
    module = session.module(gradient)
    if session.recipe.privacy is None:
        module = replace(module, objective=TracedObjective(module.objective, tracer))
    tracer.phase = "clipped gradients"

    def update_begins(_loss: StepLoss) -> None:
        tracer.phase = "optimiser"

    with tracer, _told(session, tracer):
        take_step(module, batches, Position(0, 0), 1.0, update_begins)
    return tracer


def _already(session: Session, batch: object) -> dict[str, list[Tensor]]:
    return {
        "weights": [*session.network.parameters(), *session.network.buffers()],
        "optimiser": session.remembered,
        "batch": [leaf for leaf in tree_leaves(batch) if isinstance(leaf, Tensor)],
    }


@contextmanager
def _told(session: Session, tracer: Tracer) -> Generator[None]:
    """The tracer is told where the loss begins, and which tensors are gradients."""

    def loss_begins(*_: object) -> None:
        if tracer.phase == "activations":
            tracer.phase = "loss"

    network = session.network
    hooks = [network.last_module.register_forward_hook(loss_begins)]
    for parameter in network.parameters():
        if parameter.requires_grad:
            hooks.append(
                parameter.register_post_accumulate_grad_hook(
                    lambda value: None if value.grad is None else tracer.made_for(value.grad, "gradients")
                )
            )
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def _remember(session: Session) -> None:
    """Let the optimiser make its memory, as the first step would."""
    set_learning_rate(session.optimizer, 1.0)
    if has_sparse_gradients(session.network):
        with Tracer():
            take_step(session.module(ExactGradient()), next(session.batches.steps(0)), Position(0, 0), 1.0)
        return
    for parameter in session.network.parameters():
        parameter.grad = torch.zeros_like(parameter) if parameter.requires_grad else None
    with Tracer():
        session.optimizer.step()
    for parameter in session.network.parameters():
        parameter.grad = None


def _frozen(session: Session, parts: StageParts) -> tuple[Tracer, float] | None:
    if session.frozen is None:
        return None
    examples = parts.examples("train")
    assert examples is not None
    batch = _first_batch(examples, session)
    tracer = Tracer(_already(session, batch.inputs))
    tracer.phase = "frozen part"
    _go_through_frozen(session, batch, tracer)
    others = len(session.valid) if session.valid is not None else 0
    return tracer, (len(examples) + others) / len(batch.ids)


def _validation(session: Session, step: Tracer) -> tuple[Tracer, float] | None:
    """Of a large network it is not followed: it takes less memory than a step, and the time of a step's forward pass."""
    if session.valid is None:
        return None
    valid = session.valid
    if weight_bytes(session.network) > LARGE:
        tracer = Tracer()
        tracer.calls = {name: step.calls.get(name, Counter()) for name in ("activations", "loss")}
        return tracer, len(valid) / session.recipe.train.batch_size / session.recipe.train.accumulate
    batch = _first_batch(valid, session)
    tracer = Tracer(_already(session, batch.inputs))
    tracer.phase = "validation"
    _validate(session, batch, tracer)
    if valid.lengths is None:
        return tracer, len(valid) / len(batch.ids)
    size = int(valid.lengths[batch.ids].max()) * len(batch.ids)
    return tracer, float(valid.lengths.sum()) / max(1, size)


def _first_batch(examples: Examples, session: Session) -> Batch:
    """Of those that are passed through once, without gradients."""
    return next(iter(in_order(examples.to(session.device), EVALUATION_BATCH)))


def _go_through_frozen(session: Session, batch: Batch, watch: AbstractContextManager[object]) -> None:
    assert session.frozen is not None
    with evaluating(session.network), torch.inference_mode(), watch:
        outputs_of(session.network, session.frozen.prefix, batch.inputs)


def _validate(session: Session, batch: Batch, watch: AbstractContextManager[object]) -> None:
    with evaluating(session.model), torch.inference_mode(), watch:
        session.objective.loss_sum(session.model, batch, 0)


def _reading(session: Session) -> float:
    """The median. What is kept of a frozen part is not read here."""
    times: list[float] = []
    batches = replace(session.batches, examples=session.train.without_features()).steps(0)
    while len(times) < READ:
        started = time.perf_counter()
        if next(batches, None) is None:
            break
        times.append(time.perf_counter() - started)
    return median_high(times) if times else math.nan


def timed_steps(parts: StageParts, session: Session, seconds: float, most: int, *, others: bool) -> Timed:
    """Real steps, and what is computed besides, beginning with the largest; the first ones, which find their memory and get the processor going, are not timed.

    Where lengths differ, and the few that were taken are longer or shorter than an epoch's, seconds are scaled to its mean.

    Args:
        others: a batch goes through the frozen part and one through validation, too.
    """
    forget_peak()
    freezing.start_epoch(session.plans, parts.recipe.train.epochs - 1)
    times: list[float] = []
    taken: list[int] = []
    warm, since = 0, time.perf_counter()
    every = session.batches.sizes(0)
    largest = _largest(every)
    steps = itertools.chain(
        [(next(session.batches.steps(0, start=largest)), every[largest])],
        (
            pair
            for epoch in itertools.count()
            for pair in zip(session.batches.steps(epoch), session.batches.sizes(epoch))
        ),
    )
    met: set[int] = set()
    with threads(session.threads), small_numbers_as_zero(), dry_run_gradient(session) as gradient:
        module = session.module(gradient)
        while not times or (
            len(times) < most and sum(times) < seconds and time.perf_counter() - since < READING * seconds
        ):
            batches, size = next(steps)
            met.add(size)
            started = time.perf_counter()
            take_step(module, batches, Position(0, len(times)), 1.0)
            if session.device.type == "cuda":
                torch.cuda.synchronize()  # a card computes on while the next step is prepared
            if warm == 0 or started - since < WARM_SECONDS * (1 if warm >= WARM_STEPS else 2):
                warm += 1
                continue
            times.append(time.perf_counter() - started)
            taken.append(size)
        if others and session.frozen is not None:
            examples = parts.examples("train")
            assert examples is not None
            _go_through_frozen(session, _first_batch(examples, session), nullcontext())
        if others and session.valid is not None:
            _validate(session, _first_batch(session.valid, session), nullcontext())
    longer = (sum(every) / len(every)) / (sum(taken) / len(taken))
    return Timed(
        seconds=[seconds * longer for seconds in times], process=peak_memory(), lengths=len(met), others=others
    )
