"""Which strategy trains a stage."""

from __future__ import annotations

from tunewright.console import Console
from tunewright.pipeline.build.parts import StageParts
from tunewright.pipeline.stage import StageJob
from tunewright.pipeline.strategies.auto_strategy import settle
from tunewright.pipeline.strategies.base import Strategy
from tunewright.pipeline.strategies.private import Private
from tunewright.pipeline.strategies.replicated import Replicated
from tunewright.pipeline.strategies.sharded import NeverMaterialised, Sharded
from tunewright.pipeline.strategies.single import SingleProcess


def choose_strategy(job: StageJob, parts: StageParts, console: Console) -> Strategy:
    """The strategy that the recipe asks for, or that fits the network into the memory of the job's processes.

    Raises:
        RecipeError: several processes cannot train this stage, or not with the strategy that the recipe names.
    """
    hardware = parts.recipe.hardware
    if job.group is None:
        if hardware.devices * hardware.nodes > 1 or hardware.strategy == "fsdp" or hardware.offload:
            console.warning("one process trains alone and shards nothing: `tunewright run` or torchrun start several")
        return SingleProcess(job, parts) if parts.recipe.privacy is None else Private(job, parts)
    parts = settle(parts, job.group)
    if parts.recipe.hardware.strategy != "fsdp":
        return Replicated(job, parts, job.group)
    never_materialised = parts.weights == "sharded"  # nobody has weights to share
    return (NeverMaterialised if never_materialised else Sharded)(job, parts, job.group)
