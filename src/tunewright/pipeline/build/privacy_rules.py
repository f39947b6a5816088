"""What a recipe may not ask for beside privacy, and what privacy decides by itself."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tunewright.errors import RecipeError
from tunewright.models.build import RESNETS
from tunewright.recipe.named import parse_named
from tunewright.recipe.schema import Model, Recipe


def require_private(recipe: Recipe, seeds: int = 1) -> None:
    """See what can be seen in the recipe alone.

    Args:
        recipe: a stage's.
        seeds: how often the whole run is repeated, whatever the stage's own block says.

    Raises:
        RecipeError: it asks for something that no ε would be true of.
    """
    if recipe.privacy is None:
        return
    changing = [next(iter(step)) if isinstance(step, dict) else step for step in recipe.train.augment]
    mixing = [name for name in changing if name in ("mixup", "cutmix")]
    refused: list[tuple[str, Any, str]] = [
        (
            "eval.seeds",
            repeats if (repeats := max(seeds, recipe.eval.seeds)) > 1 else None,
            "each repeat spends ε again",
        ),
        ("eval.controls", recipe.eval.controls or None, "the controls would learn from the same rows without privacy"),
        ("tune.method", _other_method(recipe), "only training by gradients is made private"),
        ("train.augment", mixing or None, "it makes one example of two, whose shares cannot be told apart"),
        ("data.mix", recipe.data.mix or None, "sources by weight draw some rows more often than ε is counted for"),
        (
            "train.class_weights",
            recipe.train.class_weights if recipe.train.class_weights == "balanced" else None,
            "the weights are counted from the training rows without noise; numbers of yours are fine",
        ),
        ("train.batch_seconds", recipe.train.batch_seconds, "a step's examples are drawn by coins; write batch_size"),
        (
            "hardware.gradient_checkpointing",
            recipe.hardware.gradient_checkpointing is True or None,
            "layers that are computed twice would be counted twice",
        ),
        (
            "hardware.precision",
            recipe.hardware.precision if recipe.hardware.precision == "bfloat16" else None,
            "norms of 8 bits would let gradients through that are longer than they may be",
        ),
    ]
    for place, found, why in refused:
        if found is not None:
            raise RecipeError(
                f"it does not go with privacy: {why}",
                place=place,
                found=found,
                expected="no such setting beside `privacy`",
                fix=f"leave {place} out",
            )


def private_recipe(recipe: Recipe, say: Callable[[str], None]) -> Recipe:
    """The recipe with what privacy decides: float32, nothing computed twice, no norms over the batch."""
    hardware = recipe.hardware.model_copy(update={"precision": "float32", "gradient_checkpointing": False})
    return recipe.model_copy(update={"hardware": hardware, "model": without_batch_norm(recipe.model, say)})


def without_batch_norm(model: Model, say: Callable[[str], None]) -> Model:
    """The model block with norms over each example alone in place of those over the batch, which mix examples."""

    def other(layers: list[Any] | None) -> list[Any] | None:
        if layers is None:
            return None
        return [{"group_norm": "auto"} if _kind(layer) == "batch_norm" else layer for layer in layers]

    changes: dict[str, Any] = {"layers": other(model.layers), "head": other(model.head)}
    if model.backbone is not None and model.weights in (None, "random"):
        name, options = parse_named(model.backbone, "model.backbone")
        if name in RESNETS and "norm" not in options:
            changes["backbone"] = {name: {**options, "norm": "group"}}
    changed = model.model_copy(update=changes)
    if changed != model:
        say("privacy: batch norms mix examples, so group norms take their place")
    return changed


def _other_method(recipe: Recipe) -> str | None:
    return recipe.tune.method if recipe.tune.method not in (None, "gradient") else None


def _kind(layer: Any) -> str:
    return layer if isinstance(layer, str) else next(iter(layer), "")
