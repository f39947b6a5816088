"""A search for better settings before its first trial: what is searched, on which data, and by which result trials are compared."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tunewright.console import Console
from tunewright.data.prepared import Prepared
from tunewright.errors import RecipeError
from tunewright.evaluation.metrics import METRICS
from tunewright.pipeline.build.prepare_data import prepare_data
from tunewright.pipeline.identity import identify
from tunewright.pipeline.read_recipe import read_recipe
from tunewright.pipeline.stage import recipe_backbone
from tunewright.recipe.named import parse_named
from tunewright.recipe.schema import Recipe
from tunewright.recipe.search_space import Choice, choices
from tunewright.recipe.stages import stage_recipes
from tunewright.tasks.registry import get_task
from tunewright.training.objectives.registry import OBJECTIVES


@dataclass(frozen=True, kw_only=True)
class Search:
    """A search before its first trial."""

    recipe: Path
    overrides: list[str]
    base: Path
    folder: Path
    space: list[Choice]
    metric: str
    greater: bool
    epochs: int
    seed: int
    prepared: list[Prepared] = field(default_factory=list)


def open_search(recipe: Path, overrides: list[str], runs: Path, screen: Console) -> Search:
    """What the recipe asks for, and its data.

    Raises:
        RecipeError: it cannot be searched so.
    """
    loaded, _, _, base, name = read_recipe(recipe, overrides, None)
    space = choices(loaded.search)
    _require_searchable(recipe, overrides, space, loaded)
    stages = stage_recipes(loaded)
    last = stages[-1].recipe
    if any(stage.recipe.privacy is not None for stage in stages):
        raise RecipeError(
            "each trial on the training rows would spend ε again, and nothing would add them up",
            place="search",
            found="a recipe with privacy",
            fix="choose settings on public data of the same kind",
        )
    prepared = [prepare_data(stage.recipe, base, screen) for stage in stages]
    if prepared[-1].rows("valid") == 0:
        raise RecipeError(
            "trials are held against each other on validation rows, and there are none",
            place="data.split.valid",
            found=0,
            expected="a share above 0",
            fix="data.split: {valid: 0.1}",
        )
    metric = _selected_by(last)
    backbones = [recipe_backbone(stage.recipe, base) for stage in stages]
    known = identify(loaded.model_dump(mode="json"), stages, prepared, backbones, base)
    folder = runs / f"{name}-tune-{known.key[:8]}"
    folder.mkdir(parents=True, exist_ok=True)
    greater = metric != "loss" and METRICS[metric].greater_is_better
    return Search(
        recipe=recipe, overrides=overrides, base=base, folder=folder, space=space, metric=metric, greater=greater,
        epochs=last.train.epochs,
        seed=loaded.seed, prepared=prepared,
    )  # fmt: skip


def _selected_by(recipe: Recipe) -> str:
    """The validation result that a training keeps its best weights by, and that trials are held against each other by."""
    task = get_task(recipe.task)
    if recipe.train.select is not None:
        return recipe.train.select
    if task.evaluation is not None:
        return task.evaluation.select or "loss"
    objective = recipe.train.objective
    named = OBJECTIVES.get(parse_named(objective, "train.objective")[0]) if objective is not None else None
    return "loss" if named is not None and named.target is None else task.metrics[0]


def _require_searchable(recipe: Path, overrides: list[str], space: Sequence[Choice], loaded: Recipe) -> None:
    """Each value that is named, and both ends of each range, must fit the recipe's schema now, not in the tenth trial."""
    for choice in space:
        if choice.name.split(".")[0] in ("data", "eval", "search", "seed"):
            raise RecipeError(
                "trials that differ in data or evaluation cannot be held against each other",
                place=f"search.{choice.name}",
                expected="a key of model, tune or train",
                fix="take it out",
            )
        for value in choice.values:
            read_recipe(recipe, [*overrides, choice.override(value)], None)
