"""Run `tunewright data check` and `tunewright data prepare`."""

from __future__ import annotations

import json
from pathlib import Path

from tunewright.commands.redact import check_personal
from tunewright.console import Console, silent
from tunewright.data.checks.finding import Finding
from tunewright.data.checks.table import check
from tunewright.data.prepare.executor import Engine
from tunewright.data.prepared import Prepared
from tunewright.data.text.presidio import presidio
from tunewright.pipeline.build.prepare_data import prepare_data
from tunewright.pipeline.read_recipe import read_recipe
from tunewright.pipeline.stage import recipe_backbone
from tunewright.recipe.schema import Recipe
from tunewright.recipe.stages import stage_recipes
from tunewright.tasks.registry import get_task


def check_data(
    recipe: Path,
    overrides: list[str],
    *,
    personal: bool = False,
    language: str | None = None,
    as_json: bool,
    console: Console | None = None,
) -> None:
    """Print problems of the data of each stage, and personal data on request.

    Args:
        language: the language in which Presidio looks for personal data too; None: without Presidio.
    """
    console = console or Console()
    besides = None if language is None else presidio(language, (silent() if as_json else console).info)
    for name, stage, base in _stages(recipe, overrides):
        prepared = prepare_data(stage, base, console)
        findings = check(prepared, seed=stage.seed, recipe=str(recipe))
        findings += check_personal(prepared, besides) if personal or besides else []
        if as_json:
            for finding in findings:
                console.rich.out(json.dumps({"stage": name, **finding.to_json()}, ensure_ascii=False))
            continue
        console.info(f"{name}: {stage.data.source}")
        for finding in findings:
            _show(finding, console)
        inputs = get_task(stage.task).inputs
        if inputs.preview is not None:
            inputs.preview(inputs.fit(prepared, stage, recipe_backbone(stage, base), None), prepared, console)


def prepare_to(
    recipe: Path, overrides: list[str], out: Path | None, engine: Engine = "local", *, console: Console | None = None
) -> list[Prepared]:
    """Prepare the data of each stage, and report what was read and what was skipped."""
    console = console or Console()
    found: list[Prepared] = []
    for name, stage, base in _stages(recipe, overrides):
        folder = None if out is None else out if len(_stages(recipe, overrides)) == 1 else out / name
        if engine != "local" and stage.data.clean is None:
            console.warning(f"{name}: the recipe has no data.clean, so there is nothing to distribute with {engine}")
        prepared = prepare_data(stage, base, console, folder, engine)
        show_prepared(name, prepared, console)
        found.append(prepared)
    return found


def show_prepared(name: str, prepared: Prepared, console: Console) -> None:
    """Print the rows read, used and skipped, the columns, the splits and the folder."""
    manifest = prepared.manifest
    console.info(f"{name}: {manifest.source} ({manifest.format}), {manifest.read:,} rows read, {manifest.used:,} used")
    for entry in manifest.skipped:
        console.warning(f"{entry.count:,} skipped: {entry.reason}: {'; '.join(entry.examples)}. {entry.fix}")
    if manifest.target is not None:
        classes = f", {len(manifest.classes)} classes" if manifest.classes else ""
        console.info(f"  target {manifest.target!r} ({manifest.target_kind}{classes}): {manifest.target_reason}")
    shown = ", ".join(manifest.input[:8]) + (f" and {len(manifest.input) - 8} more" if len(manifest.input) > 8 else "")
    console.info(f"  input {shown}")
    parts = ", ".join(f"{split} {prepared.rows(split):,}" for split in manifest.splits)
    console.info(f"  splits {parts}: {manifest.split_rule}")
    for note in manifest.notes:
        console.warning(note)
    console.info(f"  {prepared.folder}")


def _stages(recipe: Path, overrides: list[str]) -> list[tuple[str, Recipe, Path]]:
    loaded, _, _, base, _ = read_recipe(recipe, overrides, None)
    return [(stage.name, stage.recipe, base) for stage in stage_recipes(loaded)]


def _show(finding: Finding, console: Console) -> None:
    marks = {"info": ("·", "default"), "warning": ("!", "yellow"), "problem": ("✗", "bold red")}
    mark, style = marks[finding.severity]
    console.rich.print(f"{mark} {finding.title}", style=style, markup=False)
    for example in finding.examples:
        console.rich.print(f"    {example}", style="dim", markup=False)
    if finding.fix:
        console.rich.print(f"    fix: {finding.fix}", markup=False)
