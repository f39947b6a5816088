"""Describe a stage for its summary.json: data, network and training."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import torch

from tunewright.data.prepared import Prepared
from tunewright.models.diagram import network_svg
from tunewright.models.families import BESIDE
from tunewright.models.layer_table import layer_table
from tunewright.pipeline.build.parts import StageParts
from tunewright.pipeline.stage import StageJob
from tunewright.runs.folder import read_json
from tunewright.runs.records import from_json
from tunewright.runs.summary.data import DataSummary, SkippedSummary
from tunewright.runs.summary.model import (
    LayerSummary,
    ModelSummary,
    ParameterCounts,
    PretrainedModel,
)
from tunewright.runs.summary.training import BestEpoch, TrainingConditions, TrainingSummary
from tunewright.training.freezing import TrainablePlan, is_trained
from tunewright.training.state import State


def describe_data(prepared: Prepared) -> DataSummary:
    """Describe where the data came from, what was used and what was skipped."""
    manifest = prepared.manifest
    return DataSummary(
        source=manifest.source,
        rows={split: prepared.rows(split) for split in ("train", "valid", "test")},
        read=manifest.read,
        used=manifest.used,
        skipped=[SkippedSummary(**asdict(entry)) for entry in manifest.skipped],
        input=manifest.input,
        target=manifest.target,
        target_reason=manifest.target_reason,
        classes=manifest.classes,
        split_rule=manifest.split_rule,
        fingerprint=manifest.fingerprint,
        licence=manifest.licence,
        citation=manifest.citation,
    )


def describe_network(
    ingredients: StageParts,
    movements: list[TrainablePlan],
    epochs: int,
    lr: float | None,
    made_from: PretrainedModel | None = None,
) -> ModelSummary:
    """Describe the layers, which of them were trained and how fast, parameters, FLOPs, and how the saved folder is opened.

    Args:
        lr: None where nothing was learned by gradients.
        made_from: the pretrained model that the weights come from in the end.
    """
    network = ingredients.network
    plans = {f"{movement.block.part}.{movement.block.name}": movement for movement in movements}
    trained = {name: is_trained(movement, epochs - 1) for name, movement in plans.items()}
    shape = ingredients.preprocessor.inputs.input_shape
    rows = layer_table(network, network.largest_example(shape))
    frozen = {name for name, is_now in trained.items() if not is_now}
    trainable = {
        name: sum(value.numel() for value in plans[name].parameters) if is_now else 0
        for name, is_now in trained.items()
    }
    layers = [
        LayerSummary(
            block=row.block,
            kind=row.kind,
            output_shape=list(row.output_shape),
            parameters=row.parameters,
            flops=row.flops,
            trained=trained[row.block],
            trainable=trainable[row.block],
            from_epoch=(plans[row.block].from_epoch or 0) + 1 if trained[row.block] else None,
            lr=lr * plans[row.block].lr_multiplier if trained[row.block] and lr is not None else None,
        )
        for row in rows
    ]
    total = sum(row.parameters for row in rows)
    count = sum(trainable.values())
    title = network.title([row.kind for row in rows])
    return ModelSummary(
        title=title,
        layers=layers,
        parameters=ParameterCounts(total=total, trainable=count, frozen=total - count),
        flops_per_example=sum(row.flops for row in rows),
        flops_of=f"a text of {shape[0]} tokens" if network.reads_text else None,
        svg=network_svg(rows, title=title, frozen=frozen),
        opening=network.opening(made_from),
    )


def describe_source(job: StageJob) -> PretrainedModel | None:
    """Return the pretrained model that a stage's weights come from in the end; None: there is none."""
    if job.source is not None:
        beside = job.source / BESIDE
        path = beside if beside.exists() else job.source / "config.json"
        made_from = read_json(path, "a saved model").get("made_from")
        return None if made_from is None else from_json(PretrainedModel, made_from, file=path)
    if (backbone := job.pretrained) is None:
        return None
    name = Path(backbone.name).name if Path(backbone.name).is_absolute() else backbone.name
    return PretrainedModel(name=name, hub=backbone.hub, licence=backbone.licence)


def describe_training(
    ingredients: StageParts, state: State, lr: float | None, selected_by: str, conditions: TrainingConditions
) -> TrainingSummary:
    """Describe what was done, and how long it took."""
    recipe, best = ingredients.recipe, state.best
    device, few_shot = str(next(ingredients.network.parameters()).device), conditions.few_shot
    if few_shot is not None and state.step == 0:
        return TrainingSummary(
            **vars(conditions),
            objective="logistic regression",
            seconds=state.seconds,
            device=device,
            threads=torch.get_num_threads(),
        )
    return TrainingSummary(
        **vars(conditions),
        epochs=recipe.train.epochs,
        epochs_run=state.epoch,
        steps=state.step,
        seconds=state.seconds,
        examples_per_second=state.examples / state.seconds,
        batch_size=recipe.train.batch_size * recipe.train.accumulate if recipe.train.batch_seconds is None else None,
        batch_seconds=recipe.train.batch_seconds,
        optimizer=recipe.train.optimizer,
        lr=lr,
        objective=ingredients.objective.name if few_shot is None else few_shot.method,
        best=None
        if best is None
        else BestEpoch(epoch=best.epoch, step=best.step, metric=selected_by, value=best.value),
        stopped=state.finished,
        device=device,
        threads=torch.get_num_threads(),
    )
