"""Remove the wrappers for the compiler from PyTorch's optimisers.

Nothing is compiled here, but the wrappers import the compiler when an optimiser is created, which takes over a second, and cost
about 30 µs in every step, as much as the step itself for a small network. The arithmetic is PyTorch's own.
"""

from __future__ import annotations

import inspect
from functools import cache
from typing import Any

import torch
from torch.optim import Optimizer


@cache
def bare(kind: type[Optimizer]) -> type[Any]:
    """Return the optimiser class with unwrapped `step` and `add_param_group`.

    Pre-step hooks are called; the profiler's hooks are not.
    """
    plain_step = inspect.unwrap(kind.step)

    def step(self: Optimizer) -> None:
        for hook in self._optimizer_step_pre_hooks.values():  # pyright: ignore[reportPrivateUsage]
            hook(self, (), {})
        with torch.no_grad():
            plain_step(self)

    setattr(step, "hooked", True)  # noqa: B010 PyTorch's mark of a step that needs no wrapper
    return type(kind.__name__, (kind,), {"step": step, "add_param_group": inspect.unwrap(kind.add_param_group)})
