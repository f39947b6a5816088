"""Train one stage: from its recipe to `model/`, `metrics.jsonl` and `summary.json` in its folder."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import closing
from typing import Any

from tunewright.console import Console
from tunewright.errors import Stopped
from tunewright.pipeline.build.parts import StageParts
from tunewright.pipeline.device import small_numbers_as_zero, threads
from tunewright.pipeline.session.memory import forget_peak, peak_memory
from tunewright.pipeline.signals import stop_requests
from tunewright.pipeline.stage import StageJob
from tunewright.pipeline.strategies.choose_strategy import choose_strategy
from tunewright.pipeline.strategies.validation import selection_metric
from tunewright.pipeline.trackers import tracking
from tunewright.pipeline.train.early_stopping import Selection
from tunewright.pipeline.train.finish_stage import finish_stage
from tunewright.pipeline.train.progress import EpochCallback, Progress
from tunewright.pipeline.train.resume import begin_or_resume
from tunewright.runs.metrics_log import MetricsLog
from tunewright.training.checkpoints.async_saver import Saver
from tunewright.training.loop import LoopConfig, train
from tunewright.training.schedule import learning_rate_factor


def train_stage(
    job: StageJob,
    parts: StageParts,
    console: Console,
    *,
    finish: Callable[..., None] = finish_stage,
    on_epoch: EpochCallback | None = None,
) -> None:
    """Train by gradients, from the newest good checkpoint on; leaves model/ and, last of all, summary.json.

    Args:
        finish: ends the stage, with the arguments of `finish_stage`.
        on_epoch: gets the epoch, counted from 1, and its validation results; what it raises ends the training.

    Raises:
        UserError: recipe, data and source do not fit together.
        Diverged: the loss or the weights are not finite any more.
        Stopped: a stop was asked for; a checkpoint was written.
    """
    began = time.perf_counter()
    forget_peak()
    strategy = choose_strategy(job, parts, console)
    session, parts = strategy.open(console), strategy.parts
    settings, writes, folder = parts.recipe.train, strategy.is_writer, job.folder
    total_steps = settings.epochs * strategy.batches.steps_per_epoch
    state = begin_or_resume(job, strategy, session, total_steps, console)
    stopping = settings.early_stopping
    with (
        closing(MetricsLog(folder / "metrics.jsonl" if writes else None, step=state.step)) as metrics_log,
        Saver(folder / "checkpoints", beside=session.device.type != "cpu", together=strategy.writers) as saver,
        tracking(parts.recipe if writes else parts.recipe.model_copy(update={"track": []}), folder) as track,
        console.training(job.stage.name, settings.epochs, total_steps, state.step) as report_step,
        stop_requests() as should_stop,
        small_numbers_as_zero(),
        threads(session.threads),
    ):
        progress = Progress(
            name=job.stage.name,
            strategy=strategy,
            session=session,
            selection=Selection(
                metric=selection_metric(parts), patience=None if stopping is None else stopping.patience
            ),
            saver=saver,
            metrics_log=metrics_log,
            track=track,
            report_step=report_step,
            console=console,
            on_epoch=on_epoch,
        )
        preparation = time.perf_counter() - began
        train(
            session.module(strategy.gradient),
            strategy.batches,
            learning_rate_factor(settings.schedule, settings.warmup, total_steps),
            state,
            LoopConfig(epochs=settings.epochs, save_every=settings.checkpoint_steps),
            progress.callbacks(should_stop),
        )
        # After the last step there is still much to do.
        stopped = strategy.any(state.finished is None or should_stop())
    if stopped and strategy.is_writer:
        raise Stopped(
            f"{job.stage.name} was stopped after step {state.step:,} of {total_steps:,}; a checkpoint was written",
            file=folder / "checkpoints",
            fix="run the same command again: it goes on from there",
        )
    if stopped:
        return
    trained = strategy.close(state)
    if not strategy.is_writer:
        return
    means: dict[str, Any] = {
        "preparation_seconds": preparation,
        "peak_memory": peak_memory(),
        "precision": session.precision,
        "gradient_checkpointing": session.recomputes,
        "frozen_part_kept": session.frozen is not None,
        **({} if trained.privacy is None else {"privacy": trained.privacy}),
    }
    finish(
        job, parts, state, trained.plan, trained.before, parts.lr, means, session.texts, console, after=trained.after
    )
