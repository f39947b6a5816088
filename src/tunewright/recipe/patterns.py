"""Match regular expressions of a recipe, with limits on length and time, because some never end."""

from __future__ import annotations

import time

import regex

from tunewright.errors import RecipeError
from tunewright.limits import PATTERN_CHARACTERS, PATTERN_MILLISECONDS


def matches(pattern: str, names: list[str], place: str) -> set[str]:
    """Return the names that a regular expression matches.

    Args:
        place: its place in the recipe, such as "tune.freeze".

    Raises:
        RecipeError: it is not a regular expression, too long, or takes too long.
    """
    PATTERN_CHARACTERS.require(len(pattern), "the pattern is too long", error=RecipeError, place=place)
    try:
        compiled = regex.compile(pattern)
        end = time.monotonic() + PATTERN_MILLISECONDS.value / 1000
        return {name for name in names if compiled.search(name, timeout=max(0.0, end - time.monotonic()))}
    except TimeoutError:
        raise RecipeError(
            "the pattern takes too long to match",
            place=place,
            found=pattern,
            expected=f"a pattern that matches all names within {PATTERN_MILLISECONDS.value:,} ms",
            fix="avoid a repetition within a repetition, such as (a+)+",
        ) from None
    except (regex.error, RecursionError, OverflowError, MemoryError) as error:
        raise RecipeError(
            f"the pattern is not a regular expression: {error}",
            place=place,
            found=pattern,
            expected=r"a regular expression, such as layer\.[0-3]",
            fix="correct it, or name the blocks one by one",
        ) from None
