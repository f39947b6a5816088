"""The small steps between a language model's matrices, each with its gradient written out: on a CPU they take as long as
the matrices if PyTorch derives the gradient by itself, which makes a dozen passes over memory where three or four do."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


def rms_norm(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    """x / √(mean(x²) + ε) · weight over the last dimension (Zhang and Sennrich 2019), in the type that matrices are computed
    in: the cast is made once and not by each matrix."""
    device = x.device.type
    dtype = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else x.dtype
    return _RmsNorm.apply(x, weight, eps, dtype)  # pyright: ignore


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Turn each pair (i, i + K/2) of the last dimension by an angle (Su et al. 2021); in the type of the angles.

    Args:
        x: [B, H, T, K]; cos, sin: [B, 1, T, K/2].
    """
    return _Rotate.apply(x, cos, sin)  # pyright: ignore


class _RmsNorm(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, eps: float, dtype: torch.dtype) -> Tensor:
        length = torch.linalg.vector_norm(x, dim=-1, keepdim=True, dtype=torch.float32)
        scale = length.square_().div_(x.shape[-1]).add_(eps).rsqrt_()
        normed = x * scale
        ctx.save_for_backward(normed, scale, weight)
        return (normed * weight).to(dtype)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor | None, None, None]:
        normed, scale, weight = ctx.saved_tensors
        gradient = gradients[0].to(normed.dtype)
        inner = gradient * weight
        # d(x s)/dx = s (1 − n nᵀ / D) with n = x s.
        along = torch.linalg.vecdot(inner, normed).unsqueeze(-1).div_(normed.shape[-1])
        for_weight = (gradient * normed).flatten(0, -2).sum(0) if ctx.needs_input_grad[1] else None
        return inner.addcmul_(normed, along, value=-1).mul_(scale), for_weight, None, None


class _Rotate(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        ctx.save_for_backward(cos, sin)
        ctx.dtype = x.dtype
        return _turned(x.to(cos.dtype), cos, sin, 1)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        cos, sin = ctx.saved_tensors
        return _turned(gradients[0], cos, sin, -1).to(ctx.dtype), None, None


def _turned(x: Tensor, cos: Tensor, sin: Tensor, way: int) -> Tensor:
    """Forwards (1) or back (−1)."""
    first, second = x.chunk(2, dim=-1)
    found = torch.empty(x.shape, dtype=x.dtype, device=x.device)
    one, other = found.chunk(2, dim=-1)
    torch.mul(first, cos, out=one)
    torch.mul(second, cos, out=other)
    one.addcmul_(second, sin, value=-way)
    other.addcmul_(first, sin, value=way)
    return found
