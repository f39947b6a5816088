"""Train a stage by the method that its recipe names or that its data asks for."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from tunewright.checksums import find_damage
from tunewright.console import Console
from tunewright.notes import note
from tunewright.pipeline.build.parts import StageParts, build_parts
from tunewright.pipeline.stage import StageJob
from tunewright.pipeline.strategies.partial_weights import never_materialised_parts
from tunewright.pipeline.train.few_shot import learn_from_features, learn_from_pairs
from tunewright.pipeline.train.progress import EpochCallback
from tunewright.pipeline.train.train_stage import train_stage
from tunewright.runs.folder import read_or_forget

METHODS: dict[str, Callable[[StageJob, StageParts, Console], None]] = {
    "features": learn_from_features,
    "contrastive": learn_from_pairs,
}


def learn_stage(job: StageJob, console: Console, on_epoch: EpochCallback | None = None) -> None:
    """Train a stage, resuming where it was killed; leaves model/ and, last of all, summary.json.

    Args:
        on_epoch: gets each epoch's validation results, of a training by gradients; what it raises ends the stage.

    Raises:
        UserError: recipe, data and source do not fit together.
        Diverged: the loss or the weights are not finite any more.
        Stopped: a stop was asked for; a checkpoint was written.
    """
    parts = never_materialised_parts(job, console)
    if parts is None:
        parts = build_parts(job.recipe, job.prepared, job.origin(), job.backbone, console)
    if parts.tune.method in (None, "gradient"):
        train_stage(job, parts, console, on_epoch=on_epoch)
        return
    METHODS[parts.tune.method](job, parts, console)


def is_learned(folder: Path) -> bool:
    """Return whether a stage has its summary and its model; a damaged one is reported, and the stage is finished again."""
    if read_or_forget(folder / "summary.json", "a stage's summary") is None:
        return False
    damage = find_damage(folder / "model")
    if damage is not None:
        note(f"{damage}; the model is saved anew")
    return damage is None
