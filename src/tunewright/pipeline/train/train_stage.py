"""Train one stage: from its recipe to `model/`, `metrics.jsonl` and `summary.json` in its folder."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import nn

from tunewright.console import Console
from tunewright.errors import Diverged, Stopped
from tunewright.models.backbone import model_files
from tunewright.models.core.meta_weights import Weights
from tunewright.models.core.network import Network
from tunewright.models.hub.hf_network import Transformer
from tunewright.pipeline.build.parts import StageParts
from tunewright.pipeline.device import small_numbers_as_zero, threads
from tunewright.pipeline.session.disk_space import checkpoint_room, require_room
from tunewright.pipeline.session.memory import forget_peak, peak_memory
from tunewright.pipeline.session.session import Session, open_session
from tunewright.pipeline.signals import stop_requests
from tunewright.pipeline.stage import StageJob
from tunewright.pipeline.strategies.auto_strategy import divided, settle
from tunewright.pipeline.strategies.partial_weights import fill, write
from tunewright.pipeline.strategies.private import private_training
from tunewright.pipeline.trackers import tracking
from tunewright.pipeline.train.early_stopping import Selection
from tunewright.pipeline.train.finish_stage import finish_stage
from tunewright.pipeline.train.validation import selection_metric, validator
from tunewright.runs.metrics_log import MetricsLog
from tunewright.training import freezing
from tunewright.training.checkpoints.async_saver import Saver
from tunewright.training.checkpoints.beginning import Beginning
from tunewright.training.checkpoints.checkpoint import (
    Checkpoint,
    find_newest,
    load_best,
    read_checkpoint,
)
from tunewright.training.distributed.dtensors import all_reduce_found, local_shard
from tunewright.training.distributed.fsdp import ShardedObjective, run_sharded
from tunewright.training.distributed.process_group import ProcessGroup, current_group
from tunewright.training.freeze_certificate import fingerprint
from tunewright.training.gradients import AllReducedGradient, ExactGradient, GradientEstimator
from tunewright.training.loop import Callbacks, LoopConfig, train
from tunewright.training.optimizers.registry import load_state_tensors, state_tensors
from tunewright.training.schedule import learning_rate_factor
from tunewright.training.state import Best, State

# (epoch, counted from 1, and its validation results).
EpochCallback = Callable[[int, dict[str, float]], None]


def train_ingredients(
    job: StageJob,
    ingredients: StageParts,
    screen: Console,
    finish: Callable[..., None] | None = None,
    watch: EpochCallback | None = None,
) -> None:
    """Train by gradients, going on from the newest good checkpoint; leaves model/ and, last of all, summary.json.

    Args:
        watch: is told the epoch, counted from 1, and its validation results; what it raises ends the training.
        finish: what ends the stage, with the arguments of `finish_stage`, in its place.

    Raises:
        UserError: recipe, data and source do not fit together.
        Diverged: the loss or the weights are not finite any more.
        Stopped: a stop was asked for; a checkpoint was written.
    """
    began = time.perf_counter()
    forget_peak()
    together = current_group()
    if together is not None:
        ingredients = settle(ingredients, together)
    elif (
        (shared := ingredients.recipe.hardware).devices * shared.nodes > 1
        or shared.strategy == "fsdp"
        or shared.offload
    ):
        screen.warning(
            "one process trains alone and divides nothing: several are started by `tunewright run` or by torchrun"
        )
    recipe, train_settings = ingredients.recipe, ingredients.recipe.train
    ready = open_session(ingredients, job.folder, screen)
    gradient: GradientEstimator = ExactGradient()
    private = None
    if recipe.privacy is not None:
        private = private_training(job, ingredients, ready, ready.objective, screen)
        gradient = private.gradient
    leads = together is None or together.is_writer
    from_parts = ingredients.numbers == "sharded"  # the network is whole in no process
    before = fingerprint(ready.network) if leads and not from_parts else {}
    whole_movements = ready.movements
    in_parts = together is not None and recipe.hardware.strategy == "fsdp"
    if together is not None and together.is_writer:
        others = "sharded" if from_parts else "meta" if in_parts else "pretrained"
        together.broadcast(_order(job, ready, others))  # now that what is kept on disk is there
    rows = together
    if together is not None and in_parts:
        own = partial(fill, ingredients=ingredients, job=job) if from_parts else None
        ready, rows = divided(ready, ingredients, together, own)
        ready = replace(ready, objective=ShardedObjective(ready.objective))
        before = fingerprint(ready.network) if from_parts else before
    if rows is not None:
        gradient = AllReducedGradient(rows)
    network, model, movements = ready.network, ready.model, ready.movements
    batches = private.batches if private else ready.batches
    total_steps = train_settings.epochs * batches.steps_per_epoch

    lr, optimizer = ingredients.lr, ready.optimizer
    names = {id(parameter): name for name, parameter in network.named_parameters()}
    parameter_names = [names[id(parameter)] for group in optimizer.param_groups for parameter in group["params"]]

    checkpoints = job.folder / "checkpoints"
    origin = job.starts_from
    beginning = Beginning(files=model_files(origin) if origin else {}, tensors={} if from_parts else before)
    state = State(beginning=beginning if leads else None)
    newest = find_newest(checkpoints, screen.warning) if leads else None
    if together is not None and (told := together.broadcast(newest and str(newest))) is not None:
        newest = Path(told)
    if newest is not None:
        found = read_checkpoint(newest, dict(network.named_parameters()) if in_parts else None)
        state = State.from_json(found.state)
        if leads and state.beginning is not None:
            state.beginning.require_same(beginning, origin)
            before = state.beginning.tensors or before
        freezing.load_trainable(network, movements, found.model)
        load_state_tensors(optimizer, parameter_names, found.optimizer)
        screen.info(f"{job.stage.name}: going on after step {state.step:,} of {total_steps:,}")

    if leads and state.finished is None:
        moving = freezing.trainable_state_dict(network, movements).values()
        require_room(job.folder, checkpoint_room(train_settings, total_steps, moving, optimizer))
    validate = validator(ingredients, ready.valid, ready.device, rows, undivided=leads or in_parts)
    selection = Selection(
        metric=selection_metric(ingredients),
        patience=train_settings.early_stopping.patience if train_settings.early_stopping else None,
    )
    log_every = max(1, batches.steps_per_epoch // 20)

    with (
        closing(MetricsLog(job.folder / "metrics.jsonl" if leads else None, step=state.step)) as metrics_log,
        Saver(checkpoints, beside=ready.device.type != "cpu", together=together if in_parts else None) as saver,
        tracking(recipe if leads else recipe.model_copy(update={"track": []}), job.folder) as track,
        screen.training(job.stage.name, train_settings.epochs, total_steps, state.step) as report_step,
        stop_requests() as should_stop,
    ):

        def log_step(state: State, loss: float, rate: float) -> None:
            if state.step % log_every == 0:
                entry = {"kind": "step", "step": state.step, "epoch": state.epoch + 1, "loss": loss, "lr": rate}
                metrics_log.append(entry)
                track(entry)
            report_step(state.epoch + 1, state.step, loss, state.examples, state.seconds)

        def end_epoch(state: State, train_loss: float) -> None:
            require_finite(network, state)
            valid = run_sharded(model, validate) if validate else None
            if together is not None and not leads and not in_parts:
                follow_epoch(state, together)
                return
            if together is not None and in_parts:
                valid = together.broadcast(valid)  # all measured the same; all decide by the very same numbers
            if valid is not None:
                selection.update(
                    state, valid, lambda: saver.save_best(state.step, freezing.trainable_state_dict(network, movements))
                )
                if watch is not None:
                    watch(state.epoch, valid)
            if together is not None and not in_parts:
                together.broadcast(selected(state))
            rate = max(group["lr"] for group in optimizer.param_groups)
            speed = state.examples / state.seconds
            entry = {
                "kind": "epoch",
                "epoch": state.epoch,
                "step": state.step,
                "train_loss": train_loss,
                "valid": valid,
                "lr": rate,
                "seconds": state.seconds,
                "examples_per_second": speed,
            }
            metrics_log.append(entry)
            track(entry)
            sample = run_sharded(model if in_parts else network, lambda network: written_sample(ingredients, network))
            if sample is not None:
                metrics_log.append({"kind": "sample", "epoch": state.epoch, "step": state.step, "text": sample})
            shown = "".join(f"  valid {name} {value:.4f}" for name, value in (valid or {}).items())
            screen.info(
                f"{job.stage.name}  epoch {state.epoch}/{train_settings.epochs}  train loss {train_loss:.4f}{shown}"
                f"  {speed:,.0f} examples/s"
            )

        def save(state: State) -> None:
            require_finite(network, state)
            if not leads and not in_parts:
                return
            metrics_log.sync()  # a resumed training keeps the lines up to its checkpoint
            tensors = state_tensors(optimizer, parameter_names)
            checkpoint = Checkpoint(
                step=state.step,
                model=freezing.trainable_state_dict(network, movements),
                optimizer=tensors,
                state=state.to_json(),
            )
            saver.save(checkpoint)

        preparation = time.perf_counter() - began
        with (
            small_numbers_as_zero(),
            threads(ready.threads),
        ):
            train(
                ready.module(gradient),
                batches,
                learning_rate_factor(train_settings.schedule, train_settings.warmup, total_steps),
                state,
                LoopConfig(epochs=train_settings.epochs, save_every=train_settings.checkpoint_steps),
                Callbacks(
                    start_epoch=lambda epoch: freezing.start_epoch(movements, epoch),
                    log_step=log_step,
                    end_epoch=end_epoch,
                    save=save,
                    should_stop=should_stop if together is None else lambda: together.any(should_stop()),
                ),
            )
        stopped = state.finished is None or should_stop()  # after the last step there is still much to do
    after = None
    if together is not None and from_parts and state.finished is not None:
        if state.best is not None:
            parts = dict(network.named_parameters())
            freezing.load_trainable(network, movements, load_best(checkpoints, state.best.folder, parts, checked=leads))
        after = fingerprint(network)
        write(
            job.folder / "model",
            network,
            ingredients.network,
            freezing.trainable_state_dict(network, movements),
            together,
        )
    if not leads:
        return
    if stopped:
        raise Stopped(
            f"{job.stage.name} was stopped after step {state.step:,} of {total_steps:,}; a checkpoint was written",
            file=checkpoints,
            fix="run the same command again: it goes on from there",
        )
    means: dict[str, Any] = {
        "preparation_seconds": preparation,
        "peak_memory": peak_memory(),
        "precision": ready.precision,
        "gradient_checkpointing": ready.recomputes,
        "frozen_part_kept": ready.frozen is not None,
    }
    if in_parts and not from_parts and (newest := find_newest(checkpoints, screen.warning)) is not None:
        freezing.load_trainable(ingredients.network, whole_movements, read_checkpoint(newest).model)
    if private is not None:
        private.gradient.remove()
        means["privacy"] = private.facts()
    end = finish or partial(finish_stage, after=after)
    end(job, ingredients, state, whole_movements, before, lr, means, ready.texts, screen)


def _order(job: StageJob, ready: Session, numbers: Weights) -> dict[str, Any]:
    """What the other processes need to know to train the same, with what was chosen here, and what their networks' weights are."""
    hardware = ready.recipe.hardware
    chosen = {
        "strategy": hardware.strategy,
        "prefix_cache": hardware.prefix_cache,
        "precision": ready.precision,
        "gradient_checkpointing": ready.recomputes,
    }
    recipe = job.recipe.model_copy(update={"hardware": hardware.model_copy(update=chosen)})
    return {
        "stage": job.stage.name,
        "kind": job.stage.kind,
        "recipe": recipe.model_dump(mode="json", exclude_unset=True),
        "numbers": numbers,
        "folder": str(job.folder.resolve()),
        "source": None if job.source is None else str(job.source.resolve()),
        "prepared": str(job.prepared.folder.resolve()),
        "manifest": job.prepared.manifest.to_json(),
        "base": str(job.prepared.base.resolve()),
    }


def selected(state: State) -> dict[str, Any]:
    """What an epoch's validation decided."""
    return {
        "best": asdict(state.best) if state.best else None,
        "since": state.epochs_since_best,
        "finished": state.finished,
    }


def follow_epoch(state: State, together: ProcessGroup) -> None:
    """Take over what the first process decided."""
    told = together.broadcast(None)
    state.best = Best(**told["best"]) if told["best"] else None
    state.epochs_since_best, state.finished = told["since"], told["finished"]


def written_sample(ingredients: StageParts, network: Network) -> str | None:
    """What the network makes by itself, where its task has such a thing."""
    examination = ingredients.task.evaluation
    if examination is None or examination.sample is None:
        return None
    if not isinstance(network, Transformer):
        return examination.sample(network, ingredients.preprocessor.inputs)
    with network.autocast(next(network.parameters()).device):  # the weights of a divided one may come in no other type
        return examination.sample(network, ingredients.preprocessor.inputs)


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
