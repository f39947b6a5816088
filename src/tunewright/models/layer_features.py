"""What each block of a network's backbone makes of its inputs, as one row for each example."""

from __future__ import annotations

from typing import Any

import torch
import torch.utils._pytree as pytree
from torch import Tensor

from tunewright.models.network import AnyNetwork, Inputs


def layer_means(network: AnyNetwork, inputs: Inputs) -> list[Tensor]:
    """For each block of the backbone that has weights, its output [B, F], the mean over places.

    Places are an image's [B, F, H, W], or a text's tokens [B, T, F], where padding does not count.
    """
    found: list[Tensor] = []
    mask = inputs.get("attention_mask") if isinstance(inputs, dict) else None

    def note(_module: Any, _inputs: Any, output: Any) -> None:
        tensors = [leaf for leaf in pytree.tree_leaves(output) if isinstance(leaf, Tensor)]
        if tensors and tensors[0].dim() >= 2 and tensors[0].is_floating_point():
            found.append(_pooled(tensors[0].float(), mask))

    blocks = [block for block in network.blocks() if block.part == "backbone" and block.parameters()]
    hooks = [block.module.register_forward_hook(note) for block in blocks]
    try:
        with torch.inference_mode():
            network(inputs)
    finally:
        for hook in hooks:
            hook.remove()
    return found


def _pooled(output: Tensor, mask: Tensor | None) -> Tensor:
    if output.dim() == 3 and mask is not None and output.shape[:2] == mask.shape:
        weight = mask.to(output.dtype)[:, :, None]
        return (output * weight).sum(1) / weight.sum(1).clamp(min=1)
    if output.dim() == 3:
        return output.mean(1)
    return output.flatten(2).mean(2) if output.dim() > 3 else output
