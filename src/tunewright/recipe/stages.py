"""Expand a recipe into its stages, each a complete recipe."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from tunewright.recipe.loading import merge_stage
from tunewright.recipe.schema import Recipe


@dataclass(frozen=True, kw_only=True)
class StageRecipe:
    """Hold one training stage: its name, kind and recipe."""

    name: str
    """The name of its folder: the kind, with a number if a kind is repeated."""
    kind: Literal["pretrain", "finetune"]
    recipe: Recipe


def stage_recipes(recipe: Recipe) -> list[StageRecipe]:
    """Return the stages in order, each with its changes merged into the recipe, which is already validated."""
    base = recipe.model_dump(mode="json", exclude_unset=True, exclude={"stages"})
    found: list[StageRecipe] = []
    for stage in recipe.stages:
        kind, over = (stage, {}) if isinstance(stage, str) else next(iter(stage.items()))
        before = sum(other.kind == kind for other in found)
        found.append(
            StageRecipe(
                name=kind if before == 0 else f"{kind}-{before + 1}",
                kind=kind,  # pyright: ignore[reportArgumentType]  loading has checked it
                recipe=Recipe.model_validate(merge_stage(base, over or {})),
            )
        )
    return found
