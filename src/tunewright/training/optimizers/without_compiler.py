"""PyTorch's optimisers without the wrappers for its compiler.

Nothing is compiled here, yet the wrappers import the compiler when an optimiser is made, over a second, and cost about
30 µs in every step: as much as the step itself takes for a small network. The arithmetic is PyTorch's own, untouched.
"""

from __future__ import annotations

import inspect
from functools import cache
from typing import Any

import torch
from torch.optim import Optimizer


@cache
def bare(kind: type[Optimizer]) -> type[Any]:
    """The same optimiser class, with `step` and `add_param_group` as they are written in their source.

    Of the hooks on a step those before it are called; the profiler's are not.
    """
    plain_step = inspect.unwrap(kind.step)

    def step(self: Any) -> None:
        for hook in self._optimizer_step_pre_hooks.values():
            hook(self, (), {})
        with torch.no_grad():
            plain_step(self)

    setattr(step, "hooked", True)  # noqa: B010 what PyTorch marks a step with that it need not wrap again
    return type(kind.__name__, (kind,), {"step": step, "add_param_group": inspect.unwrap(kind.add_param_group)})
