"""Prepare a stage's data."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from tunewright.console import Console
from tunewright.data.prepare.executor import Engine
from tunewright.data.prepare.prepare import PrepareSettings, prepare
from tunewright.data.prepared import Prepared
from tunewright.errors import RecipeError
from tunewright.pipeline.stage import recipe_backbone
from tunewright.recipe.schema import Recipe
from tunewright.tasks.base.public_statistics import with_public_classes
from tunewright.tasks.registry import get_task


def prepare_data(
    recipe: Recipe, base: Path, console: Console, out: Path | None = None, engine: Engine = "local"
) -> Prepared:
    """The prepared data of a recipe; at once when it was prepared before.

    Args:
        out: the folder that gets it; None: the cache.
        engine: as for `prepare`.
    """
    task = get_task(recipe.task)
    if recipe.data.mix and task.inputs.mix is None:
        raise RecipeError(
            "only a language model learns from a mix of sources",
            place="data.mix",
            found=f"task: {task.name}",
            expected="task: language-modeling",
            fix="leave data.mix out, or put the rows into one file",
        )
    framing = None
    if task.inputs.frame is not None:
        framing, note = task.inputs.frame(recipe, recipe_backbone(recipe, base))
        if note is not None:
            console.warning(note)
    with console.counting(f"preparing {recipe.data.source}") as progress:
        # A stage with data of its own does not say again what the task reads.
        format = recipe.data.format or task.defaults.get("data", {}).get("format")
        found = prepare(
            recipe.data.model_copy(update={"format": format}),
            settings=PrepareSettings(out=out, engine=engine, progress=progress),
            seed=recipe.seed,
            target_kind=task.target_kind if recipe.data.labelled else None,
            base=base,
            framing=framing,
        )
    prepared = with_public_classes(replace(found, base=base), recipe)
    look = task.inputs.unused
    if look is not None and recipe.data.input is None and (unused := look(prepared)):
        console.warning(f"columns that are neither numbers nor categories are not used: {', '.join(unused)}")
    return prepared
