"""AdamW whose two running means are kept in 8 bits: 2 bytes a parameter in place of 8 (Dettmers et al. 2022, "8-bit Optimizers via Block-wise
Quantization", section 2).

The arithmetic is bitsandbytes': at each step the means of a block of 256 numbers are read in 32 bits, moved as AdamW moves them, and rounded
to the 256 levels of a dynamic data type. Small parameters keep theirs in 32 bits, as in the paper's implementation.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import cache
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from tunewright.models.hub.quantization import bitsandbytes

BLOCK = 256
# Below so many numbers 32 bits are kept.
SMALL = 4096
# So many numbers are moved at once, so that what a step needs besides stays small.
PIECE = 2**20


class Adam8bit(Optimizer):
    """θ ← θ − η m̂ / (√v̂ + ε), with m and v rounded.

    Raises:
        RecipeError: bitsandbytes is not installed.
    """

    def __init__(self, groups: Iterable[dict[str, Any]], lr: float, betas: tuple[float, float], eps: float) -> None:
        bitsandbytes("train.optimizer", "adamw_8bit", "train.optimizer: adamw")
        super().__init__(list(groups), {"lr": lr, "betas": betas, "eps": eps, "weight_decay": 0.0})

    @torch.no_grad()
    def step(self) -> None:  # pyright: ignore[reportIncompatibleMethodOverride]  there is no closure here
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is not None:
                    state = self.state[parameter]
                    if not state:
                        state |= fresh_state(parameter)
                    state["step"] += 1
                    _move(parameter, parameter.grad, state, group)


def fresh_state(parameter: Tensor) -> dict[str, Tensor]:
    """What is remembered of a parameter before its first step."""
    kind = torch.float32 if parameter.numel() < SMALL else torch.uint8
    state = {"step": torch.zeros(())}
    for name in ("exp_avg", "exp_avg_sq"):
        state[name] = torch.zeros_like(parameter, dtype=kind, memory_format=torch.contiguous_format)
        if kind == torch.uint8:
            state[f"{name}_scales"] = parameter.new_zeros(-(-parameter.numel() // BLOCK))
    return state


def _move(parameter: Tensor, gradient: Tensor, state: dict[str, Tensor], group: dict[str, Any]) -> None:
    step, (mean, square) = int(state["step"]), group["betas"]
    operations = torch.ops.bitsandbytes
    whole = parameter if parameter.is_contiguous() else parameter.contiguous()
    gradient = gradient.contiguous().view(-1)
    values, first, second = whole.view(-1), state["exp_avg"].view(-1), state["exp_avg_sq"].view(-1)
    if first.dtype == torch.float32:
        rest = (None, 0.0, 0.0, mean, square, 0.0, 0.0, group["eps"], group["weight_decay"], step, group["lr"], 1.0)
        operations.optimizer_update_32bit("adam", gradient, values, first, second, *rest)
    else:
        signed, unsigned = levels(values.device)
        rates = (mean, square, 0.0, 0.0, group["eps"], step, group["lr"])
        for begin in range(0, len(values), PIECE):
            piece, blocks = slice(begin, begin + PIECE), slice(begin // BLOCK, (begin + PIECE) // BLOCK)
            scales = state["exp_avg_scales"][blocks], state["exp_avg_sq_scales"][blocks]
            moved = gradient[piece], values[piece], first[piece], second[piece]
            operations.optimizer_update_8bit_blockwise(
                "adam", *moved, *rates, signed, unsigned, *scales, group["weight_decay"], 1.0
            )
    if whole is not parameter:
        parameter.copy_(whole)


@cache
def levels(device: torch.device) -> tuple[Tensor, Tensor]:
    """The 256 levels of m, which has a sign, and of v, which has none."""
    from bitsandbytes.functional import create_dynamic_map

    signed, unsigned = create_dynamic_map(signed=True), create_dynamic_map(signed=False)
    return signed.to(device), unsigned.to(device)
