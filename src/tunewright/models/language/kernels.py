"""Compute the element-wise steps between a language model's matrix products, each with a hand-written gradient.

On a CPU they would take as long as the matrix products with PyTorch's derived gradients, which make a dozen passes over memory
where three or four are enough.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor
from torch.autograd.function import FunctionCtx
from torch.nn import functional as F


def rms_norm(
    x: Float[Tensor, "*batch features"], weight: Float[Tensor, " features"], eps: float
) -> Float[Tensor, "*batch features"]:
    """Compute x / √(mean(x²) + ε) · weight over the last dimension (Zhang and Sennrich 2019).

    The result has the type of the matrix products under autocast, so that it is cast once and not by each of them.
    """
    device = x.device.type
    dtype = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else x.dtype
    return _RmsNorm.apply(x, weight.to(x.dtype), eps, dtype)  # pyright: ignore


def rotate(
    x: Float[Tensor, "batch time heads head_size"],
    cos: Float[Tensor, "#batch time 1 head_size"],
    sin: Float[Tensor, "#batch time 1 head_size"],
) -> Float[Tensor, "batch time heads head_size"]:
    """Rotate each pair (i, i + head_size / 2) of the last dimension by an angle (Su et al. 2021), in the type of the angles.

    Args:
        cos: of each angle, repeated for both halves.
        sin: likewise, the first half negative.
    """
    return _Rotate.apply(x, cos, sin)  # pyright: ignore


def gated(both: Float[Tensor, "*batch two_features"]) -> Float[Tensor, "*batch features"]:
    """Compute silu(gate) · up, where the input's first half is the gate and the second one up (Shazeer 2020)."""
    return _Gated.apply(both)  # pyright: ignore


class _RmsNorm(torch.autograd.Function):
    @staticmethod
    def forward(ctx: FunctionCtx, x: Tensor, weight: Tensor, eps: float, dtype: torch.dtype) -> Tensor:
        normed, scale = torch.ops.aten._fused_rms_norm(x, [x.shape[-1]], weight, eps)
        ctx.save_for_backward(x, scale, weight)
        return normed.to(dtype)

    @staticmethod
    def backward(ctx: FunctionCtx, *gradients: Tensor) -> tuple[Tensor, Tensor | None, None, None]:
        x, scale, weight = ctx.saved_tensors
        gradient = gradients[0].to(x.dtype)
        # The kernel of layer norm with a mean of 0 gives the result except for a term that the last line adds.
        wanted = [True, ctx.needs_input_grad[1], False]
        shape, zero = [x.shape[-1]], torch.zeros_like(scale)
        found, for_weight, _ = torch.ops.aten.native_layer_norm_backward(
            gradient, x, shape, zero, scale, weight, None, wanted
        )
        taken = (gradient @ weight).unsqueeze(-1).mul_(scale).div_(x.shape[-1])
        return found.add_(taken), for_weight, None, None


class _Rotate(torch.autograd.Function):
    """Compute x · cos + (x with its halves swapped) · sin: whole rows at a time instead of single pairs."""

    @staticmethod
    def forward(ctx: FunctionCtx, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        ctx.save_for_backward(cos, sin)
        exact = x.to(cos.dtype, memory_format=torch.contiguous_format)
        return (exact * cos).addcmul_(exact.roll(x.shape[-1] // 2, -1), sin).to(x.dtype)

    @staticmethod
    def backward(ctx: FunctionCtx, *gradients: Tensor) -> tuple[Tensor, None, None]:
        cos, sin = ctx.saved_tensors
        exact = gradients[0].to(cos.dtype, memory_format=torch.contiguous_format)
        turned = (exact * cos).add_((exact * sin).roll(cos.shape[-1] // 2, -1))
        return turned.to(gradients[0].dtype), None, None


class _Gated(torch.autograd.Function):
    @staticmethod
    def forward(ctx: FunctionCtx, both: Tensor) -> Tensor:
        gate, up = both.chunk(2, dim=-1)
        opened = F.silu(gate)
        ctx.save_for_backward(both, opened)
        return opened * up

    @staticmethod
    def backward(ctx: FunctionCtx, *gradients: Tensor) -> Tensor:
        both, opened = ctx.saved_tensors
        gate, up = both.chunk(2, dim=-1)
        found = torch.empty_like(both)
        for_gate, for_up = found.chunk(2, dim=-1)
        torch.mul(gradients[0], opened, out=for_up)
        torch.ops.aten.silu_backward(gradients[0] * up, gate, grad_input=for_gate)
        return found
