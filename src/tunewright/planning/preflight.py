"""A run's own plan: made before anything is spent, refused where it cannot fit, and held against what was then needed."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path

import torch

from tunewright.console import Console, silent
from tunewright.data.prepared import Prepared
from tunewright.errors import RecipeError
from tunewright.files import free_disk
from tunewright.hardware.machines import card_here
from tunewright.hardware.resource_model import StagePlan
from tunewright.planning.format import ranged
from tunewright.planning.history import record
from tunewright.planning.plan import given_stages, plan_stage, planned_machine
from tunewright.recipe.stages import StageRecipe
from tunewright.runs.summary.stage import read_summary
from tunewright.units import duration, size_of


def plan_run(
    stages: list[StageRecipe], prepared: list[Prepared], base: Path, runs: Path, *, force: bool, console: Console
) -> dict[str, StagePlan]:
    """The plan of each stage by its name, said in a line each.

    Raises:
        RecipeError: a stage cannot fit into memory, whatever the plan may be wrong by; not with `force`.
    """
    if torch.cuda.is_available() and card_here() is None:
        console.warning("this machine's card is not known, so nothing is foretold: tunewright plan --on says how")
        return {}
    hardware = stages[0].recipe.hardware
    machine = planned_machine(None, console, cards=hardware.devices * hardware.nodes)
    found: dict[str, StagePlan] = {}
    for given in given_stages(stages, base, silent(), prepared):
        plan = plan_stage(given, machine, probe=False, console=silent())
        if plan is None:
            continue
        found[plan.stage] = plan
        console.info(f"{plan.stage}  plan: {ranged(plan.seconds, duration)}, {ranged(plan.process, size_of)} of memory")
        if plan.process.low > plan.memory and not force:
            raise RecipeError(
                f"{plan.stage} does not fit into this machine's memory",
                found=f"{ranged(plan.process, size_of)}, most of it at {plan.peak_at}",
                expected=f"at most {size_of(plan.memory)}",
                fix="tunewright plan RECIPE --write smaller.yaml looks for a way; --force starts it all the same",
            )
    wanted, free = sum(sum(plan.disk.values()) for plan in found.values()), free_disk(runs)
    if wanted > free:
        console.warning(f"{size_of(wanted)} of disk will be needed, and {size_of(free)} are free in {runs}")
    return found


def record_actual(plan: StagePlan, folder: Path, run: str) -> None:
    """Remember what a stage that was just trained took, beside what its plan said."""
    training = read_summary(folder).training
    if not training.steps or training.peak_memory is None:
        return
    when = datetime.now().isoformat(timespec="minutes")
    record(plan, when=when, run=run, seconds=training.seconds / training.steps, peak=training.peak_memory)
