"""End a stage: save the best weights, check the freeze certificate, write the summary."""

from __future__ import annotations

from typing import Any

from tunewright.console import Console
from tunewright.errors import RunFailed
from tunewright.files import write_record
from tunewright.models.saved_model import save_model
from tunewright.pipeline.build.parts import StageParts
from tunewright.pipeline.stage import StageJob
from tunewright.pipeline.strategies.validation import selection_metric
from tunewright.pipeline.summary.privacy_lineage import LINEAGE, lineage_after, promise
from tunewright.pipeline.summary.stage_summary import (
    describe_data,
    describe_network,
    describe_opening,
    describe_source,
    describe_training,
)
from tunewright.training import freezing
from tunewright.training.freeze_certificate import certify, fingerprint
from tunewright.training.state import State


def finish_stage(
    job: StageJob,
    ingredients: StageParts,
    state: State,
    movements: list[freezing.TrainablePlan],
    before: dict[str, str],
    lr: float | None,
    means: dict[str, Any],
    texts: dict[str, Any] | None,
    screen: Console,
    after: dict[str, str] | None = None,
) -> None:
    """Save the best weights, check the freeze certificate, write the summary.

    Args:
        after: the fingerprint of the best weights, where they are written and no process holds them whole.

    Raises:
        RunFailed: something that was to stay frozen has changed.
    """
    network = ingredients.network
    freezing.release(network)
    ingredients.preprocessor.inputs.write(job.folder / "model")
    made_from = describe_source(job)
    lineage = lineage_after(job, ingredients.prepared, ingredients.preprocessor, means.get("privacy"))
    extra = {
        "preprocessor": ingredients.preprocessor.to_json(),
        "made_from": made_from,
        LINEAGE: lineage.to_json(),
    }
    save_model(job.folder / "model", network, extra)
    chosen_epoch = state.best.epoch if state.best else state.epoch
    certificate = certify(movements, before, after or fingerprint(network), chosen_epoch)
    show_certificate(job.stage.name, certificate, screen)
    summary = {
        "stage": job.stage.name,
        "kind": job.stage.kind,
        "task": job.recipe.task,
        "seed": job.recipe.seed,
        "data": describe_data(ingredients.prepared),
        "model": {
            **describe_network(ingredients, movements, chosen_epoch, lr),
            "opening": describe_opening(network, made_from),
        },
        "training": {**describe_training(ingredients, state, lr, selection_metric(ingredients)), **means},
        "certificate": certificate,
        **({"privacy": promised} if (promised := promise(lineage)) is not None else {}),
        **({"texts": texts} if texts is not None else {}),
    }
    write_record(job.folder / "summary.json", summary)


def show_certificate(stage: str, certificate: dict[str, Any], screen: Console) -> None:
    """One line on what stayed and what moved; RunFailed when something frozen has moved."""
    if not certificate["passed"]:
        raise RunFailed(
            f"{stage}: the freeze certificate failed",
            found="; ".join(certificate["warnings"][:3]),
            expected="every frozen tensor bit-identical to its source",
            fix="this is a mistake in the model's code, not in your recipe: please report it",
        )
    frozen, trained = certificate["frozen"], certificate["trained"]
    if frozen:
        tensors = sum(entry["tensors"] for entry in frozen)
        moved = sum(entry["changed"] for entry in trained)
        screen.info(
            f"{stage}  freeze certificate passed: {tensors} frozen tensors identical, {moved} trained ones changed"
        )
    for warning in certificate["warnings"]:
        screen.warning(warning)
