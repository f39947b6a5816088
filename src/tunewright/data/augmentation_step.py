"""A step of `train.augment`, as a recipe writes it."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any

from tunewright.errors import RecipeError
from tunewright.recipe.named import choose


def parse_step(
    step: str | dict[str, Any], where: str, known: Mapping[str, Callable[..., Any]]
) -> tuple[str, dict[str, Any]]:
    """Return a step's name and options: a name, {name: options}, or {name: value of its first option}.

    Raises:
        RecipeError: it is neither, or there is no such name.
    """
    if isinstance(step, str):
        return step, {}
    if len(step) != 1:
        raise RecipeError(
            "each step of the list has one name",
            place=where,
            found=step,
            expected="flip, {crop: 4}, or {randaugment: {n: 2, m: 9}}",
            fix="write one step a line",
        )
    ((name, value),) = step.items()
    if isinstance(value, dict):
        return name, value
    return name, {next(iter(inspect.signature(choose(known, name, "train.augment")).parameters)): value}
