"""The small steps between a language model's matrices, each with its gradient written out: on a CPU they take as long as
the matrices if PyTorch derives the gradient by itself, which makes a dozen passes over memory where three or four do."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F


def rms_norm(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    """x / √(mean(x²) + ε) · weight over the last dimension (Zhang and Sennrich 2019), in the type that matrices are computed
    in: the cast is made once and not by each matrix."""
    device = x.device.type
    dtype = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else x.dtype
    return _RmsNorm.apply(x, weight.to(x.dtype), eps, dtype)  # pyright: ignore


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Turn each pair (i, i + K/2) of the last dimension by an angle (Su et al. 2021), computed in the type of the angles.

    Args:
        x: [B, T, H, K]; cos, sin: [B, T, 1, K], each angle's twice, the sine's first half negative.
    """
    return _Rotate.apply(x, cos, sin)  # pyright: ignore


def gated(both: Tensor) -> Tensor:
    """silu(gate) · up for [..., 2 M], the gate's half first (Shazeer 2020); [..., M]."""
    return _Gated.apply(both)  # pyright: ignore


class _RmsNorm(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, eps: float, dtype: torch.dtype) -> Tensor:
        normed, scale = torch.ops.aten._fused_rms_norm(x, [x.shape[-1]], weight, eps)
        ctx.save_for_backward(x, scale, weight)
        return normed.to(dtype)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor | None, None, None]:
        x, scale, weight = ctx.saved_tensors
        gradient = gradients[0].to(x.dtype)
        # The kernel of layer norm with a mean of 0 gives all but the mean of the gradient, which it takes away.
        wanted = [True, ctx.needs_input_grad[1], False]
        shape, zero = [x.shape[-1]], torch.zeros_like(scale)
        found, for_weight, _ = torch.ops.aten.native_layer_norm_backward(
            gradient, x, shape, zero, scale, weight, None, wanted
        )
        taken = (gradient @ weight).unsqueeze(-1).mul_(scale).div_(x.shape[-1])
        return found.add_(taken), for_weight, None, None


class _Rotate(torch.autograd.Function):
    """x · cos + (its halves changed over) · sin: whole rows at a time, where pairs would be a few numbers at a time."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        ctx.save_for_backward(cos, sin)
        exact = x.to(cos.dtype, memory_format=torch.contiguous_format)
        return (exact * cos).addcmul_(exact.roll(x.shape[-1] // 2, -1), sin).to(x.dtype)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        cos, sin = ctx.saved_tensors
        exact = gradients[0].to(cos.dtype, memory_format=torch.contiguous_format)
        turned = (exact * cos).add_((exact * sin).roll(cos.shape[-1] // 2, -1))
        return turned.to(gradients[0].dtype), None, None


class _Gated(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, both: Tensor) -> Tensor:
        gate, up = both.chunk(2, dim=-1)
        opened = F.silu(gate)
        ctx.save_for_backward(both, opened)
        return opened * up

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        both, opened = ctx.saved_tensors
        gate, up = both.chunk(2, dim=-1)
        found = torch.empty_like(both)
        for_gate, for_up = found.chunk(2, dim=-1)
        torch.mul(gradients[0], opened, out=for_up)
        torch.ops.aten.silu_backward(gradients[0] * up, gate, grad_input=for_gate)
        return found
