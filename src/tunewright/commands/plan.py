"""Run `tunewright plan`: print the plan of a recipe as tables or JSON, with settings that make a stage fit."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import yaml
from rich.table import Table

from tunewright.console import Console, silent
from tunewright.errors import RecipeError
from tunewright.files import write_atomic
from tunewright.hardware.machines import Hardware
from tunewright.hardware.resource_model import StagePlan
from tunewright.pipeline.read_recipe import read_recipe
from tunewright.planning.fit_to_budget import Limits, Option, find_strategy, parse_budgets
from tunewright.planning.format import plan_table
from tunewright.planning.plan import PlanInput, plan
from tunewright.recipe.changes import Changes, nested
from tunewright.recipe.loading import merge_stage
from tunewright.recipe.stages import stage_recipes
from tunewright.units import dollars, duration, size_of

HARDWARE = "hardware."


@dataclass(frozen=True, kw_only=True)
class FitSettings:
    """Say what a recipe must fit into, and what may be changed for it."""

    budgets: list[str] = field(default_factory=list)
    """As for `parse_budgets`. Memory is per stage, time and cost are for all stages together."""
    allowed: list[str] = field(default_factory=list)
    """Changes of the result that may be tried, by the names of `RISKY`."""
    write: Path | None = None
    """The file for the recipe with the changes."""


def print_plan(
    recipe: Path,
    overrides: list[str],
    *,
    on: str | None = None,
    fit: FitSettings = FitSettings(),
    probe: bool = True,
    as_json: bool = False,
    console: Console | None = None,
) -> list[StagePlan]:
    """Plan a recipe; if a stage does not fit into memory or the budget, search for settings that make it fit.

    Args:
        on: another machine, as for `plan`.
        as_json: print only the plans, as JSON.

    Raises:
        RecipeError: the recipe, a budget or a name is wrong, or `fit.write` already exists.
    """
    console = silent() if as_json else console or Console()
    limits = parse_budgets(fit.budgets)
    if fit.write is not None:
        _require_place(fit.write, recipe)
    stages: list[tuple[PlanInput, StagePlan, Hardware]] = []

    def show(given: PlanInput, made: StagePlan, machine: Hardware) -> None:
        stages.append((given, made, machine))
        console.rich.print(plan_table(made))

    found = plan(recipe, overrides, on=on, probe=probe, console=console, show=show)
    changes: dict[str, Changes] = {}
    for given, made, machine in stages:
        others = [other for other in found if other is not made]
        left = replace(
            limits,
            seconds=limits.seconds - sum(other.seconds.middle for other in others),
            cost=limits.cost - sum(other.cost.middle for other in others),
        )
        if not left.allow(made) and (option := _fitted(given, made, left, fit.allowed, machine, console)) is not None:
            changes[made.stage] = option.changes
    if fit.write is not None:
        _write(recipe, overrides, changes, fit.write, console)
    if as_json:
        value = [{**asdict(made), "fits": made.fits, "changes": changes.get(made.stage, {})} for made in found]
        sys.stdout.write(json.dumps(value, indent=2) + "\n")
    return found


def _fitted(
    given: PlanInput, made: StagePlan, limits: Limits, allowed: list[str], machine: Hardware, console: Console
) -> Option | None:
    """Find, and print, settings that make a stage fit; None: none of the tried ones does."""
    option, looked_at = find_strategy(given, made, limits, allowed, machine)
    console.rich.print(_options(made, looked_at, limits))
    if option is None:
        console.warning(
            f"{made.stage}: none of the tried settings fits"
            + ("" if allowed else "; --allow lora, 4bit, 8bit, freeze or shorter tries more")
        )
        return None
    kept = "the result stays the same" if option.keeps else "THE RESULT CHANGES"
    console.info(f"{made.stage}: {_said(option.changes)}, and {kept}")
    return option


def _options(made: StagePlan, looked_at: list[Option], limits: Limits) -> Table:
    table = Table(title=f"{made.stage}: what makes it fit", title_justify="left", box=None, pad_edge=False)
    for name in ("changes", "memory", "saved", "training", "takes", ""):
        table.add_column(name, justify="left" if name in ("changes", "") else "right")
    for option in looked_at:
        plan = option.plan
        table.add_row(
            _said(option.changes),
            size_of(plan.process.middle),
            size_of(max(0.0, made.process.middle - plan.process.middle)),
            duration(plan.seconds.middle) + (f", {dollars(plan.cost.middle)}" if plan.cost.high else ""),
            f"{plan.seconds.middle / made.seconds.middle:.2f} ×",
            "fits" if limits.allow(plan) else "",
        )
    return table


def _said(changes: Changes) -> str:
    return ", ".join(f"{name}={json.dumps(value)}" for name, value in changes.items()) or "unchanged"


def _require_place(write: Path, recipe: Path) -> None:
    if write.exists():
        raise RecipeError("this file already exists", file=write, place="--write", fix="choose another name")
    if write.resolve().parent != recipe.resolve().parent:
        raise RecipeError(
            "file names in a recipe are relative to its folder",
            place="--write",
            found=write,
            expected=f"a file in {recipe.resolve().parent}",
            fix=f"--write {recipe.parent / write.name}",
        )


def _write(recipe: Path, overrides: list[str], changes: dict[str, Changes], write: Path, console: Console) -> None:
    """Write the recipe with each stage's changes in that stage, and `hardware` for all stages; comments are lost."""
    if not changes:
        console.info(f"{write} is not written: there is nothing to change")
        return
    loaded, given, _, _, _ = read_recipe(recipe, overrides, None)
    stages = list(loaded.stages)
    hardware: dict[str, Any] = {}
    for name, value in (entry for found in changes.values() for entry in found.items()):
        if name.startswith(HARDWARE):
            place = name.removeprefix(HARDWARE)
            known = hardware.get(place)
            # As many devices as the stage that needs most.
            hardware[place] = max(value, known) if isinstance(value, int) and isinstance(known, int) else value
    if hardware:
        given = {**given, "hardware": {**(given.get("hardware") or {}), **hardware}}
    for place, stage in enumerate(stage_recipes(loaded)):
        if found := changes.get(stage.name):
            written = stages[place]
            own = {} if isinstance(written, str) else written[stage.kind] or {}
            alone = {name: value for name, value in found.items() if not name.startswith(HARDWARE)}
            stages[place] = {stage.kind: merge_stage(own, nested(alone))}
    text = yaml.safe_dump({**given, "stages": stages}, sort_keys=False, allow_unicode=True)
    write_atomic(write, f"# {recipe.name}, changed so that it fits: {'; '.join(map(_said, changes.values()))}\n{text}")
    console.info(f"written: {write}")
