"""Train one stage: from its recipe to `model/`, `metrics.jsonl` and `summary.json` in its folder."""

from __future__ import annotations

import time
from collections.abc import Callable

from tunewright.console import Console
from tunewright.errors import Stopped
from tunewright.pipeline.build.parts import StageParts
from tunewright.pipeline.device import small_numbers_as_zero, threads
from tunewright.pipeline.session.memory import forget_peak, peak_memory
from tunewright.pipeline.signals import stop_requests
from tunewright.pipeline.stage import StageJob
from tunewright.pipeline.strategies.choose_strategy import choose_strategy
from tunewright.pipeline.train.finish_stage import Training, finish_stage
from tunewright.pipeline.train.progress import EpochCallback, open_progress
from tunewright.pipeline.train.resume import begin_or_resume
from tunewright.runs.summary.training import TrainingConditions
from tunewright.training.loop import LoopConfig, train
from tunewright.training.schedule import learning_rate_factor


def train_stage(
    job: StageJob,
    parts: StageParts,
    console: Console,
    *,
    finish: Callable[[StageJob, StageParts, Training, Console], None] = finish_stage,
    on_epoch: EpochCallback | None = None,
) -> None:
    """Train by gradients, from the newest good checkpoint on; leaves model/ and, last of all, summary.json.

    Args:
        finish: ends the stage; gets the parts as they were trained.
        on_epoch: gets the epoch, counted from 1, and its validation results; what it raises ends the training.

    Raises:
        UserError: recipe, data and source do not fit together.
        Diverged: the loss or the weights are not finite any more.
        Stopped: a stop was asked for; a checkpoint was written.
    """
    began = time.perf_counter()
    forget_peak()
    strategy = choose_strategy(job, parts, console)
    session, settings = strategy.open(console), strategy.parts.recipe.train
    total_steps = settings.epochs * strategy.batches.steps_per_epoch
    state = begin_or_resume(job, strategy, session, total_steps, console)
    with (
        open_progress(job, strategy, session, state, console, on_epoch) as progress,
        stop_requests() as should_stop,
        small_numbers_as_zero(),
        threads(session.threads),
    ):
        preparation = time.perf_counter() - began
        train(
            session.module(strategy.gradient),
            strategy.batches,
            learning_rate_factor(settings.schedule, settings.warmup, total_steps),
            state,
            LoopConfig(epochs=settings.epochs, save_every=settings.checkpoint_steps),
            progress.callbacks(should_stop),
        )
        stopped = strategy.any(state.finished is None or should_stop())  # much remains after the last step
    if stopped:
        raise Stopped(
            f"{job.stage.name} was stopped after step {state.step:,} of {total_steps:,}; a checkpoint was written",
            file=job.folder / "checkpoints",
            fix="run the same command again: it goes on from there",
        )
    trained = strategy.close(state)
    if not strategy.is_writer:
        return
    facts = TrainingConditions(
        preparation_seconds=preparation,
        peak_memory=peak_memory(),
        precision=session.precision,
        gradient_checkpointing=session.recomputes,
        feature_cache=session.frozen is not None,
        privacy=trained.privacy,
    )
    training = Training(state=state, weights=trained, lr=strategy.parts.lr, conditions=facts, texts=session.texts)
    finish(job, strategy.parts, training, console)
