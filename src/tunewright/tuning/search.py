"""Open a hyperparameter search: its search space, its data, and the metric that compares trials."""

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
    """Hold what all trials of a search share."""

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


def open_search(recipe: Path, overrides: list[str], runs: Path, console: Console) -> Search:
    """Read the search space, prepare the data, and create the folder of the search.

    Raises:
        RecipeError: the recipe cannot be searched.
    """
    loaded, _, _, base, name = read_recipe(recipe, overrides, None)
    space = choices(loaded.search)
    _require_searchable(recipe, overrides, space, loaded)
    stages = stage_recipes(loaded)
    last = stages[-1].recipe
    if any(stage.recipe.privacy is not None for stage in stages):
        raise RecipeError(
            "each trial on the training rows would spend ε again, which is not accounted for",
            place="search",
            found="a recipe with privacy",
            fix="choose hyperparameters on public data of the same kind",
        )
    prepared = [prepare_data(stage.recipe, base, console) for stage in stages]
    if prepared[-1].rows("valid") == 0:
        raise RecipeError(
            "trials are compared on validation rows, and there are none",
            place="data.split.valid",
            found=0,
            expected="a fraction above 0",
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
    """Return the validation metric that selects the best weights of a training and compares trials."""
    task = get_task(recipe.task)
    if recipe.train.select is not None:
        return recipe.train.select
    if not task.evaluation.by_batch:
        return task.evaluation.select or "loss"
    objective = recipe.train.objective
    named = OBJECTIVES.get(parse_named(objective, "train.objective")[0]) if objective is not None else None
    return "loss" if named is not None and named.target is None else task.metrics[0]


def _require_searchable(recipe: Path, overrides: list[str], space: Sequence[Choice], loaded: Recipe) -> None:
    """Check each value, and both ends of each range, against the recipe's schema now, not in the tenth trial."""
    for choice in space:
        if choice.name.split(".")[0] in ("data", "eval", "search", "seed"):
            raise RecipeError(
                "trials that differ in data or evaluation cannot be compared",
                place=f"search.{choice.name}",
                expected="a key of model, tune or train",
                fix="remove it from search",
            )
        for value in choice.values:
            read_recipe(recipe, [*overrides, choice.override(value)], None)
