"""Implement AdamW with its two moments in 8 bits: 2 bytes per parameter instead of 8 (Dettmers et al. 2022, "8-bit Optimizers via
Block-wise Quantization", section 2).

The arithmetic is bitsandbytes': at each step the moments of a block of 256 entries are dequantized to 32 bits, updated as in AdamW,
and rounded to the 256 levels of a dynamic data type. Small parameters have moments in 32 bits, as in the paper's implementation.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import cache

import torch
from torch import Tensor
from torch.optim import Optimizer

from tunewright.models.hub.quantization import bitsandbytes
from tunewright.training.optimizers.groups import Group

BLOCK = 256
# Parameters with fewer entries keep 32 bits.
SMALL = 4096
# How many entries are updated at once, which limits the temporary memory of a step.
PIECE = 2**20


class Adam8bit(Optimizer):
    """Update θ ← θ − η m̂ / (√v̂ + ε), with m and v rounded.

    Raises:
        RecipeError: bitsandbytes is not installed.
    """

    def __init__(self, groups: Iterable[Group], lr: float, betas: tuple[float, float], eps: float) -> None:
        bitsandbytes("train.optimizer", "adamw_8bit", "train.optimizer: adamw")
        super().__init__(list(groups), {"lr": lr, "betas": betas, "eps": eps, "weight_decay": 0.0})

    @torch.no_grad()
    def step(self) -> None:  # pyright: ignore[reportIncompatibleMethodOverride]  it takes no closure
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is not None:
                    state = self.state[parameter]
                    if not state:
                        state |= self.state_like(parameter)
                    state["step"] += 1
                    _update(parameter, parameter.grad, state, group)

    def state_like(self, parameter: Tensor) -> dict[str, Tensor]:
        """Return the state of a parameter before its first step."""
        kind = torch.float32 if parameter.numel() < SMALL else torch.uint8
        state = {"step": torch.zeros(())}
        for name in ("exp_avg", "exp_avg_sq"):
            state[name] = torch.zeros_like(parameter, dtype=kind, memory_format=torch.contiguous_format)
            if kind == torch.uint8:
                state[f"{name}_scales"] = parameter.new_zeros(-(-parameter.numel() // BLOCK))
        return state


def _update(parameter: Tensor, gradient: Tensor, state: dict[str, Tensor], group: Group) -> None:
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
    """Return the 256 levels of m, which is signed, and of v, which is not."""
    from bitsandbytes.functional import create_dynamic_map

    signed, unsigned = create_dynamic_map(signed=True), create_dynamic_map(signed=False)
    return signed.to(device), unsigned.to(device)
