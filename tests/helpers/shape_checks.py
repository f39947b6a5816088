"""Check the arguments and the return value of a function at run time, shapes of tensors included."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Self

from beartype import BeartypeConf, FrozenDict, beartype

# An int is a float, as for a static type checker. `Self` cannot be checked where methods are decorated one by one.
CONF = BeartypeConf(is_pep484_tower=True, hint_overrides=FrozenDict({Self: object}))


def checked(function: Callable[..., Any]) -> Callable[..., Any]:
    """Return the function with checks."""
    return beartype(conf=CONF)(function)
