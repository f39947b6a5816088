"""The device and the number of threads that a stage computes with."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager

import torch

from tunewright.errors import RecipeError
from tunewright.models.layer_table import LayerRow
from tunewright.recipe.schema import Recipe


def choose_device(recipe: Recipe) -> torch.device:
    """The recipe's device; `auto` takes an accelerator where there is one.

    Raises:
        RecipeError: the recipe asks for a device that this machine does not have.
    """
    available = {"cpu": True, "cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    wanted = recipe.hardware.device
    if wanted == "auto":
        return torch.device(next(name for name in ("cuda", "mps", "cpu") if available[name]))
    if not available[wanted]:
        raise RecipeError(
            f"this machine has no {wanted} device that torch can use",
            place="hardware.device",
            found=wanted,
            expected=", ".join(name for name, there in available.items() if there),
            fix="hardware.device: auto",
        )
    return torch.device(wanted)


# Below so many floating-point operations a step, a second thread waits longer for its start than it saves.
SMALL_STEP = 1e8


def suitable_threads(layers: list[LayerRow], batch_size: int) -> int:
    """CPU threads for these layers: one for few. A rule and no measurement, so that a run can be repeated exactly."""
    # The backward pass costs about twice the forward pass.
    flops = 3 * batch_size * sum(row.flops for row in layers)
    return 1 if flops < SMALL_STEP else torch.get_num_threads()


@contextmanager
def threads(count: int) -> Generator[None]:
    """Use so many CPU threads, and go back to what was set before."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@contextmanager
def small_numbers_as_zero() -> Generator[None]:
    """Numbers below 1e-38 count as zero: processors are many times slower with them.

    Adam's running means of a weight without a gradient (a pixel that is always black) decay into that range.
    """
    supported = torch.set_flush_denormal(True)
    try:
        yield
    finally:
        if supported:
            torch.set_flush_denormal(False)
