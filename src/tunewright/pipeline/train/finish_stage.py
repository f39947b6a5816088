"""End a stage: save the best weights, check the freeze certificate, write the summary."""

from __future__ import annotations

from dataclasses import dataclass

from tunewright.console import Console
from tunewright.errors import RunFailed
from tunewright.evaluation.metrics import facts_of
from tunewright.models.saved_model import save_model
from tunewright.pipeline.build.parts import StageParts
from tunewright.pipeline.stage import StageJob
from tunewright.pipeline.strategies.base import TrainedWeights
from tunewright.pipeline.strategies.validation import selection_metric
from tunewright.pipeline.summary.privacy_lineage import LINEAGE, lineage_after, promise
from tunewright.pipeline.summary.stage_summary import (
    describe_data,
    describe_network,
    describe_source,
    describe_training,
)
from tunewright.runs.records import to_json
from tunewright.runs.summary.data import DataDescription
from tunewright.runs.summary.model import CertificateSummary
from tunewright.runs.summary.stage import StageSummary, write_summary
from tunewright.runs.summary.training import TrainingConditions
from tunewright.training import freezing
from tunewright.training.freeze_certificate import certify, fingerprint
from tunewright.training.state import State


@dataclass(frozen=True, kw_only=True)
class Training:
    """Hold what a training leaves for the end of its stage."""

    state: State
    weights: TrainedWeights
    lr: float | None
    """The peak learning rate; None: nothing was trained by gradients."""
    conditions: TrainingConditions
    texts: DataDescription | None


def finish_stage(job: StageJob, parts: StageParts, training: Training, console: Console) -> None:
    """Save the best weights, check the freeze certificate, write the summary.

    Raises:
        RunFailed: something frozen has changed.
    """
    network, state, weights, lr = parts.network, training.state, training.weights, training.lr
    freezing.release(network)
    parts.preprocessor.inputs.write(job.folder / "model")
    made_from = describe_source(job)
    lineage = lineage_after(job, parts.prepared, parts.preprocessor, training.conditions.privacy)
    extra = {
        "preprocessor": parts.preprocessor.to_json(),
        "made_from": to_json(made_from),
        LINEAGE: lineage.to_json(),
    }
    save_model(job.folder / "model", network, extra)
    chosen_epoch = state.best.epoch if state.best else state.epoch
    certificate = certify(weights.plans, weights.before, weights.after or fingerprint(network), chosen_epoch)
    show_certificate(job.stage.name, certificate, console)
    selected_by = selection_metric(parts)
    summary = StageSummary(
        stage=job.stage.name,
        kind=job.stage.kind,
        task=job.recipe.task,
        seed=job.recipe.seed,
        data=describe_data(parts.prepared),
        model=describe_network(parts, weights.plans, chosen_epoch, lr, made_from),
        training=describe_training(parts, state, lr, selected_by, training.conditions),
        certificate=certificate,
        task_facts=parts.task.facts,
        metric_facts={selected_by: facts_of(selected_by)},
        privacy=promise(lineage),
        texts=training.texts,
    )
    write_summary(job.folder, summary)


def show_certificate(stage: str, certificate: CertificateSummary, console: Console) -> None:
    """Report the certificate in one line.

    Raises:
        RunFailed: something frozen has changed.
    """
    if not certificate.passed:
        raise RunFailed(
            f"{stage}: the freeze certificate failed",
            found="; ".join(certificate.warnings[:3]),
            expected="every frozen tensor bit-identical to its source",
            fix="this is a bug in the model's code, not in your recipe: please report it",
        )
    if certificate.frozen:
        tensors = sum(block.tensors for block in certificate.frozen)
        moved = sum(block.changed for block in certificate.trained)
        console.info(
            f"{stage}  freeze certificate passed: {tensors} frozen tensors identical, {moved} trained ones changed"
        )
    for warning in certificate.warnings:
        console.warning(warning)
