"""Tunewright: one recipe from data to a pretrained, fine-tuned, evaluated and honestly reported model."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tunewright.errors import RunFailed, TunewrightError, UserError
    from tunewright.inference.model import load_model, predict
    from tunewright.recipe.schema import Recipe
    from tunewright.run_recipe import run

__all__ = ["Recipe", "RunFailed", "TunewrightError", "UserError", "load_model", "predict", "run"]

_HOMES = {
    "Recipe": "tunewright.recipe.schema",
    "RunFailed": "tunewright.errors",
    "TunewrightError": "tunewright.errors",
    "UserError": "tunewright.errors",
    "load_model": "tunewright.inference.model",
    "predict": "tunewright.inference.model",
    "run": "tunewright.run_recipe",
}


def __getattr__(name: str) -> Any:
    # Imported when first used: torch takes over a second, and `tunewright --help` needs none of it.
    if name not in _HOMES:
        raise AttributeError(f"module 'tunewright' has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(_HOMES[name]), name)
