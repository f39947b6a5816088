"""A recipe as it was given, by a file, as a dict or as an object; and the saved model that it starts from."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Any

import yaml

from tunewright.pipeline.stage import load_origin
from tunewright.recipe.loading import apply_override, load_recipe, recipe_from_dict
from tunewright.recipe.schema import Recipe
from tunewright.recipe.yaml_text import read_yaml
from tunewright.tasks.base.task import StartingModel
from tunewright.tasks.registry import task_defaults


def read_recipe(
    recipe: Recipe | dict[str, Any] | str | Path, overrides: list[str], base: Path | str | None
) -> tuple[Recipe, dict[str, Any], str, Path, str]:
    """The recipe, what was given of it as a dict and as text, the folder that paths count from, and the run's name."""
    if isinstance(recipe, str | Path):
        path = Path(recipe)
        loaded = load_recipe(path, overrides, defaults=task_defaults)
        folder = path.resolve().parent
        name = (path.stem if path.stem != "recipe" else folder.name) or loaded.task
        text = path.read_text(encoding="utf-8")
        if overrides:
            text += "\n# with these overrides:\n" + "".join(f"#   {override}\n" for override in overrides)
        given, lines = read_yaml(text)
        for override in overrides:
            given, lines = apply_override(given, lines, override)
        return loaded, given, text, Path(base) if base else folder, loaded.name or name
    given = recipe.model_dump(mode="json", exclude_unset=True) if isinstance(recipe, Recipe) else recipe
    loaded = recipe_from_dict(given, overrides, defaults=task_defaults)
    text = yaml.safe_dump(given, sort_keys=False, allow_unicode=True)
    return loaded, given, text, Path(base or "."), loaded.name or loaded.task


def command_of(recipe: Recipe | dict[str, Any] | str | Path, overrides: list[str]) -> str:
    """What to type to carry out the recipe again."""
    if isinstance(recipe, str | Path):
        return shlex.join(["tunewright", "run", str(recipe), *overrides])
    return "tunewright run recipe.yaml    # this run was started from Python; its recipe is recipe.yaml in its folder"


def given_weights(recipe: Recipe, base: Path) -> Path | None:
    """The model folder that the recipe itself names."""
    weights = recipe.model.weights
    return None if weights in (None, "pretrained", "random") else base / weights


def given_origin(recipe: Recipe, base: Path) -> StartingModel | None:
    """The model that the recipe itself names, loaded."""
    folder = given_weights(recipe, base)
    return None if folder is None else load_origin(folder)
