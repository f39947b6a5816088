"""What each block of a network's backbone makes of its inputs, and how an answer hangs on that, as one row for each example.

Places are an image's [B, F, H, W], or a text's tokens [B, T, F], where padding does not count.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from contextlib import contextmanager
from typing import Any

import torch
import torch.utils._pytree as pytree
from torch import Tensor

from tunewright.models.core.network import Block, Inputs, Network, evaluating


def weighted_blocks(network: Network) -> list[Block]:
    """The backbone's blocks that have weights."""
    return [block for block in network.blocks() if block.part == "backbone" and block.parameters()]


def layer_means(network: Network, inputs: Inputs) -> list[Tensor]:
    """For each block of the backbone that has weights, its output [B, F], the mean over places."""
    with _outputs(network) as found, torch.inference_mode():
        network(inputs)
        return [_pooled(output.float(), inputs, mean=True) for output in found]


def layer_slopes(network: Network, inputs: Inputs, f: Callable[[Tensor], Tensor]) -> list[Tensor]:
    """For each such block [B, F]: how f rises as the block's output rises in all places, the sum of its gradient over them.

    Args:
        f: the network's outputs → [B].
    """
    with _outputs(network) as found, evaluating(network), torch.enable_grad():
        value = f(network(inputs)).sum()
        slopes = torch.autograd.grad(value, found, allow_unused=True)
    zeros = (torch.zeros_like(a) if b is None else b for a, b in zip(found, slopes))  # pyright: ignore
    return [_pooled(slope.float(), inputs, mean=False) for slope in zeros]


@contextmanager
def _outputs(network: Network) -> Generator[list[Tensor]]:
    """The blocks' outputs, once the network has computed."""
    found: list[Tensor] = []

    def note(_module: Any, _inputs: Any, output: Any) -> None:
        tensors = [leaf for leaf in pytree.tree_leaves(output) if isinstance(leaf, Tensor)]
        if tensors and tensors[0].dim() >= 2 and tensors[0].is_floating_point():
            # Below frozen weights nothing hangs on anything yet.
            found.append(tensors[0].requires_grad_(True) if torch.is_grad_enabled() else tensors[0])

    hooks = [block.module.register_forward_hook(note) for block in weighted_blocks(network)]
    try:
        yield found
    finally:
        for hook in hooks:
            hook.remove()


def _pooled(output: Tensor, inputs: Inputs, *, mean: bool) -> Tensor:
    mask = inputs.get("attention_mask") if isinstance(inputs, dict) else None
    if output.dim() == 3 and mask is not None and output.shape[:2] == mask.shape:
        weight = mask.to(output.dtype)[:, :, None]
        total = (output * weight).sum(1)
        return total / weight.sum(1).clamp(min=1) if mean else total
    if output.dim() == 3:
        return output.mean(1) if mean else output.sum(1)
    if output.dim() > 3:
        return output.flatten(2).mean(2) if mean else output.flatten(2).sum(2)
    return output
