"""Penalties on the weights as terms of the loss; decoupled weight decay belongs to the optimiser."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor


def penalty(parameters: Iterable[Tensor], l1: float, l2: float) -> Tensor:
    """Compute λ₁‖θ‖₁ + λ₂‖θ‖₂² over all trainable parameters θ, as one vector; its gradient is λ₁ sign θ + 2 λ₂ θ.

    Goodfellow, Bengio and Courville 2016, "Deep Learning", sections 7.1.1 and 7.1.2, without their ½ before λ₂. Where a
    parameter is 0 its part of the gradient is 0. Parameters without a gradient are skipped.

    Returns:
        A scalar; 0 without a gradient when nothing is trained or both λ are 0.
    """
    total = torch.zeros(())
    for parameter in parameters:
        if not parameter.requires_grad:
            continue
        if l1:
            total = total + l1 * parameter.abs().sum()
        if l2:
            total = total + l2 * parameter.square().sum()
    return total
