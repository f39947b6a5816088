"""The small steps between matrices: values and gradients as PyTorch derives them from the formulas."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from tunewright.models.language.gpt import rotation_of
from tunewright.models.language.kernels import gated, rms_norm, rotate


def plain_norm(x: Tensor, weight: Tensor) -> Tensor:
    return x / (x.square().mean(-1, keepdim=True) + 1e-6).sqrt() * weight


def plain_turn(x: Tensor, positions: Tensor) -> Tensor:
    """[B, T, H, K] as complex numbers (i, i + K/2) times e^{i angle}."""
    size = x.shape[-1]
    angles = positions[:, :, None, None] * 100.0 ** (-torch.arange(0, size, 2, dtype=x.dtype) / size)
    turned = torch.complex(x[..., : size // 2], x[..., size // 2 :]) * torch.polar(torch.ones_like(angles), angles)
    return torch.cat([turned.real, turned.imag], dim=-1)


def test_norm() -> None:
    torch.manual_seed(0)
    x, weight, gradient = torch.randn(3, 5, 16), torch.randn(16), torch.randn(3, 5, 16)
    ours, plain = ([value.clone().requires_grad_() for value in (x + 0.5, weight)] for _ in range(2))
    found, wanted = rms_norm(*ours, 1e-6), plain_norm(*plain)
    found.backward(gradient)
    wanted.backward(gradient)
    torch.testing.assert_close(found, wanted)
    for one, other in zip(ours, plain, strict=True):
        torch.testing.assert_close(one.grad, other.grad)


def test_norm_of_frozen_weights() -> None:
    x = torch.randn(2, 8, requires_grad=True)
    rms_norm(x, torch.ones(8), 1e-6).sum().backward()
    other = x.detach().clone().requires_grad_()
    plain_norm(other, torch.ones(8)).sum().backward()
    torch.testing.assert_close(x.grad, other.grad)


@pytest.mark.parametrize("heads", [1, 3])
def test_rotation(heads: int) -> None:
    torch.manual_seed(0)
    positions = torch.tensor([[0, 1, 2, 0, 1], [0, 1, 2, 3, 4]])
    # A part of a larger tensor, as the network gives it.
    ours = torch.randn(2, 5, heads + 2, 8, requires_grad=True)
    plain = ours.detach().clone().requires_grad_()
    gradient = torch.randn(2, heads, 5, 8).transpose(1, 2)
    found = rotate(ours[:, :, :heads], *rotation_of(positions, 8, 100.0))
    wanted = plain_turn(plain[:, :, :heads], positions)
    found.backward(gradient)
    wanted.backward(gradient)
    torch.testing.assert_close(found, wanted)
    torch.testing.assert_close(ours.grad, plain.grad)


def test_gate() -> None:
    torch.manual_seed(0)
    ours = torch.randn(2, 5, 12, requires_grad=True)
    plain = ours.detach().clone().requires_grad_()
    gradient = torch.randn(2, 5, 6)
    found = gated(ours)
    gate, up = plain.chunk(2, dim=-1)
    wanted = F.silu(gate) * up
    found.backward(gradient)
    wanted.backward(gradient)
    torch.testing.assert_close(found, wanted)
    torch.testing.assert_close(ours.grad, plain.grad)
