"""Parse the search space of `tunewright tune`: a recipe's `search` block, by dotted names.

search:
  train.lr: {log: [1e-5, 1e-2]}
  tune.freeze: [backbone, 6, none]
  train.batch_size: {whole: [16, 128]}
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from tunewright.errors import RecipeError

KINDS = ("log", "even", "whole")


@dataclass(frozen=True, kw_only=True)
class Choice:
    """Define one hyperparameter and its possible values."""

    name: str
    kind: Literal["one_of", "log", "even", "whole"]
    values: list[Any]
    """The possible values; of a range its two ends."""

    def override(self, value: Any) -> str:
        """Return the override for this value, as in `tunewright run RECIPE KEY=VALUE`."""
        plain = isinstance(value, str) and value.replace("_", "").replace("-", "").isalnum() and not value[0].isdigit()
        return f"{self.name}={value if plain else json.dumps(value)}"


def choices(search: Mapping[str, Any]) -> list[Choice]:
    """Parse the block.

    Raises:
        RecipeError: it is empty, or an entry is neither a list nor a range.
    """
    if not search:
        raise RecipeError(
            "there is nothing to search for",
            place="search",
            expected="names and their possible values, such as search: {train.lr: {log: [1e-5, 1e-2]}}",
            fix="add a `search` block to the recipe",
        )
    return [_choice(name, value) for name, value in search.items()]


def _choice(name: str, value: Any) -> Choice:
    if isinstance(value, list) and len(value) > 1:
        return Choice(name=name, kind="one_of", values=list(value))
    if isinstance(value, Mapping) and len(value) == 1:
        (kind, ends), *_ = value.items()
        valid = isinstance(ends, list) and len(ends) == 2 and all(_is_number(end) for end in ends) and ends[0] < ends[1]
        if (
            kind in KINDS
            and valid
            and (kind != "log" or ends[0] > 0)
            and (kind != "whole" or all(isinstance(end, int) for end in ends))
        ):
            return Choice(name=name, kind=kind, values=list(ends))
    raise RecipeError(
        "the possible values of this entry are not defined",
        place=f"search.{name}",
        found=value,
        expected="a list of two or more values, {log: [low, high]}, {even: [low, high]} or {whole: [low, high]}",
        fix=f"search: {{{name}: {{log: [1e-5, 1e-2]}}}}",
    )


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
