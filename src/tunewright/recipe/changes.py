"""Change values of a recipe by dotted names."""

from __future__ import annotations

from typing import Any

from tunewright.recipe.schema import Recipe

Changes = dict[str, object]
"""Dotted names of two parts, such as train.batch_size, with their new values."""


def with_changes(recipe: Recipe, changes: Changes) -> Recipe:
    """Return the recipe with these values."""
    for block, values in nested(changes).items():
        recipe = recipe.model_copy(update={block: getattr(recipe, block).model_copy(update=values)})
    return recipe


def nested(changes: Changes) -> dict[str, dict[str, Any]]:
    """Return the changes as nested blocks, as a recipe writes them."""
    found: dict[str, dict[str, Any]] = {}
    for name, value in changes.items():
        block, key = name.split(".")
        found.setdefault(block, {})[key] = value
    return found
