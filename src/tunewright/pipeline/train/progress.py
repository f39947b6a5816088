"""What a training records and says while it goes on: steps, epochs, samples, checkpoints."""

from __future__ import annotations

from collections.abc import Callable, Generator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import nn

from tunewright.console import Console, StepReporter
from tunewright.errors import Diverged
from tunewright.models.core.network import Network
from tunewright.pipeline.build.parts import StageParts
from tunewright.pipeline.session.session import Session
from tunewright.pipeline.stage import StageJob
from tunewright.pipeline.strategies.base import Strategy
from tunewright.pipeline.strategies.validation import selection_metric
from tunewright.pipeline.trackers import tracking
from tunewright.pipeline.train.early_stopping import Selection
from tunewright.runs.metrics_log import MetricsLog
from tunewright.training import freezing
from tunewright.training.checkpoints.async_saver import Saver
from tunewright.training.checkpoints.checkpoint import best_name
from tunewright.training.distributed.dtensors import all_reduce_found, local_shard
from tunewright.training.loop import Callbacks
from tunewright.training.state import State

# (epoch, counted from 1, and its validation results).
EpochCallback = Callable[[int, dict[str, float]], None]


@dataclass(frozen=True, kw_only=True)
class Progress:
    """The callbacks of the loop. All processes decide by the same numbers; what one records that writes no files goes nowhere."""

    name: str
    strategy: Strategy
    session: Session
    selection: Selection
    saver: Saver
    metrics_log: MetricsLog
    track: Callable[[dict[str, Any]], None]
    report_step: StepReporter
    console: Console
    on_epoch: EpochCallback | None

    def callbacks(self, should_stop: Callable[[], bool]) -> Callbacks:
        return Callbacks(
            start_epoch=partial(freezing.start_epoch, self.session.plans),
            log_step=self.log_step,
            end_epoch=self.end_epoch,
            save=self.save,
            should_stop=lambda: self.strategy.any(should_stop()),
        )

    def log_step(self, state: State, loss: float, rate: float) -> None:
        """Show a step, and record about twenty of an epoch."""
        if state.step % max(1, self.strategy.batches.steps_per_epoch // 20) == 0:
            self._record({"kind": "step", "step": state.step, "epoch": state.epoch + 1, "loss": loss, "lr": rate})
        self.report_step(state.epoch + 1, state.step, loss, state.examples, state.seconds)

    def end_epoch(self, state: State, train_loss: float) -> None:
        """Validate, select the best weights, record.

        Raises:
            Diverged: the weights are not finite.
        """
        require_finite(self.session.network, state)
        valid = self.strategy.validate()
        if valid is not None:
            self.selection.update(state, valid, partial(self._save_best, state))
            if self.on_epoch is not None:
                self.on_epoch(state.epoch, valid)
        speed = state.examples / state.seconds
        self._record(
            {
                "kind": "epoch",
                "epoch": state.epoch,
                "step": state.step,
                "train_loss": train_loss,
                "valid": valid,
                "lr": max(group["lr"] for group in self.session.optimizer.param_groups),
                "seconds": state.seconds,
                "examples_per_second": speed,
            }
        )
        sample = self.strategy.ask(partial(written_sample, self.strategy.parts))
        if sample is not None:
            self.metrics_log.append({"kind": "sample", "epoch": state.epoch, "step": state.step, "text": sample})
        shown = "".join(f"  valid {name} {value:.4f}" for name, value in (valid or {}).items())
        self.console.info(
            f"{self.name}  epoch {state.epoch}/{self.session.recipe.train.epochs}  train loss {train_loss:.4f}{shown}"
            f"  {speed:,.0f} examples/s"
        )

    def save(self, state: State) -> None:
        """Write a checkpoint.

        Raises:
            Diverged: the weights are not finite.
            RunFailed: the disk cannot be written.
        """
        require_finite(self.session.network, state)
        checkpoint = self.strategy.capture(state)
        if checkpoint is not None:
            self.metrics_log.sync()  # a resumed training keeps the lines up to its checkpoint
            self.saver.save(checkpoint)

    def _save_best(self, state: State) -> str:
        checkpoint = self.strategy.capture(state)
        if checkpoint is not None:
            self.saver.save_best(state.step, checkpoint.model)
        return best_name(state.step)

    def _record(self, entry: dict[str, Any]) -> None:
        self.metrics_log.append(entry)
        self.track(entry)


@contextmanager
def open_progress(
    job: StageJob,
    strategy: Strategy,
    session: Session,
    state: State,
    console: Console,
    on_epoch: EpochCallback | None,
) -> Generator[Progress]:
    """Open the stage's metrics, trackers, checkpoints and progress bar; on exit, wait for what is being written."""
    recipe, folder, writes = session.recipe, job.folder, strategy.is_writer
    stopping, total_steps = recipe.train.early_stopping, recipe.train.epochs * strategy.batches.steps_per_epoch
    selection = Selection(
        metric=selection_metric(strategy.parts), patience=None if stopping is None else stopping.patience
    )
    with (
        closing(MetricsLog(folder / "metrics.jsonl" if writes else None, step=state.step)) as metrics_log,
        Saver(folder / "checkpoints", beside=session.device.type != "cpu", together=strategy.writers) as saver,
        tracking(recipe if writes else recipe.model_copy(update={"track": []}), folder) as track,
        console.training(job.stage.name, recipe.train.epochs, total_steps, state.step) as report_step,
    ):
        yield Progress(
            name=job.stage.name,
            strategy=strategy,
            session=session,
            selection=selection,
            saver=saver,
            metrics_log=metrics_log,
            track=track,
            report_step=report_step,
            console=console,
            on_epoch=on_epoch,
        )


def written_sample(parts: StageParts, network: Network) -> str | None:
    """A text that the network writes by itself; None where its task has no such thing."""
    evaluation = parts.task.evaluation
    with network.autocast(next(network.parameters()).device):  # gathered weights may come in no other type
        return evaluation.sample(network, parts.preprocessor)


def require_finite(network: nn.Module, state: State) -> None:
    """Refuse to save weights that are not finite.

    Raises:
        Diverged: names the tensors.
    """
    values = network.state_dict()
    bad = torch.stack([~torch.isfinite(local_shard(value)).all().cpu() for value in values.values()]).int()
    broken = [name for name, count in zip(values, all_reduce_found(bad, list(values.values())).tolist()) if count]
    if broken:
        raise Diverged(
            "the weights are not finite",
            place=f"after epoch {state.epoch}, step {state.step}",
            found=", ".join(broken[:5]),
            fix="lower train.lr or set train.clip_norm: 1.0; the last good checkpoint is kept",
        )
