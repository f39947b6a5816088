"""All checks, in the order in which they are shown."""

from __future__ import annotations

from collections.abc import Callable

from tunewright.data.checks.basics import class_balance, constant_columns, missing_values, rows_read, types
from tunewright.data.checks.duplicates import exact_duplicates, near_duplicates
from tunewright.data.checks.finding import Finding
from tunewright.data.checks.labels import label_errors
from tunewright.data.checks.leaks import identifier_columns, leaking_columns
from tunewright.data.checks.material import Material
from tunewright.data.checks.recordings import recordings, shared_speakers
from tunewright.data.checks.times import known_future
from tunewright.data.prepared import Prepared

CHECKS: dict[str, Callable[[Material], list[Finding]]] = {
    "rows": rows_read,
    "types": types,
    "missing values": missing_values,
    "constant columns": constant_columns,
    "class balance": class_balance,
    "duplicates": exact_duplicates,
    "near duplicates": near_duplicates,
    "leaking columns": leaking_columns,
    "identifier columns": identifier_columns,
    "label errors": label_errors,
    "recordings": recordings,
    "shared speakers": shared_speakers,
    "known future": known_future,
}


def check(prepared: Prepared, *, seed: int = 0, recipe: str = "RECIPE") -> list[Finding]:
    """Look for what could spoil the result; every finding names rows and says how to mend it.

    Args:
        recipe: the recipe's path, to be named in commands.
    """
    material = Material(prepared, seed, recipe)
    return [finding for look in CHECKS.values() for finding in look(material)]
