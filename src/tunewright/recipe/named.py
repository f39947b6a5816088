"""Parse components that a recipe chooses by name, with or without options: `adam`, or `{sgd: {momentum: 0.9}}`.

Each component is a line in an explicit table; its options are the keyword-only parameters of one function, whose
annotations define the allowed values.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Mapping
from difflib import get_close_matches
from typing import Any, TypeVar, get_type_hints

from pydantic import ConfigDict, TypeAdapter, ValidationError

from tunewright.errors import RecipeError
from tunewright.recipe.schema import Named

T = TypeVar("T")
FINITE = ConfigDict(allow_inf_nan=False)


def parse_named(value: Named, where: str) -> tuple[str, dict[str, Any]]:
    """Return the name and the options of `value`, which is at `where` in the recipe ("train.optimizer").

    Raises:
        RecipeError: it is a mapping with more or fewer than one name, or its options are not a mapping.
    """
    if isinstance(value, str):
        return value, {}
    if len(value) == 1:
        ((name, options),) = value.items()
        if isinstance(options, dict):  # pyright: ignore[reportUnnecessaryIsInstance]  an override may bring anything
            return name, options
    raise RecipeError(
        "this is neither a name nor a name with its options",
        place=where,
        found=value,
        expected="a name, or {name: {option: value}}",
        fix="write one name, and its options as a mapping below it",
    )


def choose(table: Mapping[str, T], name: str, where: str) -> T:
    """Return the entry of `table` with this name.

    Raises:
        RecipeError: there is none; the fix suggests the closest name.
    """
    if name in table:
        return table[name]
    raise RecipeError(
        f"there is no {where.rpartition('.')[2].replace('_', ' ')} of this name",
        place=where,
        found=name,
        expected=", ".join(table),
        fix=suggest(name, table),
    )


def check_options(function: Callable[..., Any], options: Mapping[str, Any], where: str) -> dict[str, Any]:
    """Check options against the names and annotations of a function's keyword-only parameters.

    Args:
        where: the place of the options in the recipe, "train.optimizer.sgd".

    Returns:
        The options, converted to the annotated types (1 becomes 1.0 for a float).

    Raises:
        RecipeError: an unknown option, a value of the wrong type or out of range, or an option that is missing.
    """
    parameters = inspect.signature(function).parameters.values()
    known = {parameter.name: parameter for parameter in parameters if parameter.kind is parameter.KEYWORD_ONLY}
    hints = get_type_hints(function, include_extras=True)
    checked: dict[str, Any] = {}
    for name, value in options.items():
        if name not in known:
            raise RecipeError(
                "there is no such option",
                place=f"{where}.{name}",
                found=name,
                expected=", ".join(known) if known else "no options",
                fix=suggest(name, known) if known else f"write only {where.rpartition('.')[2]}",
            )
        try:
            checked[name] = TypeAdapter(hints[name], config=FINITE).validate_python(value)
        except ValidationError as error:
            reasons = list(dict.fromkeys(entry["msg"] for entry in error.errors()))
            raise RecipeError(
                "the value of this option is not allowed",
                place=f"{where}.{name}",
                found=value,
                expected="; ".join(reasons),
                fix="correct the value, or omit the option",
            ) from error
    missing = [
        name for name, parameter in known.items() if parameter.default is parameter.empty and name not in checked
    ]
    if missing:
        raise RecipeError(
            f"the option {missing[0]} is missing",
            place=where,
            expected=", ".join(missing),
            fix=f"write {{{where.rpartition('.')[2]}: {{{missing[0]}: …}}}}",
        )
    return checked


def suggest(name: str, known: Iterable[str]) -> str:
    """Suggest a correction for `name`: the closest known name if one is close, else any of them."""
    near = get_close_matches(str(name), list(known), n=1, cutoff=0.5)
    return f"did you mean {near[0]}?" if near else "choose one of these"
