"""Compute the features of each block of a backbone, and the gradient of a value with respect to them, one row per example.

Positions are the pixels of an image, [batch, features, height, width], or the tokens of a text, [batch, time, features];
padding does not count.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from contextlib import contextmanager

import torch
import torch.utils._pytree as pytree
from jaxtyping import Float, Shaped
from torch import Tensor, nn

from tunewright.models.core.network import Block, Inputs, Network, evaluating


def weighted_blocks(network: Network) -> list[Block]:
    """Return the backbone's blocks that have weights."""
    return [block for block in network.blocks() if block.part == "backbone" and block.parameters()]


def layer_means(network: Network, inputs: Inputs) -> list[Float[Tensor, "batch _"]]:
    """Compute the output of each backbone block that has weights, averaged over positions."""
    with _outputs(network) as found, torch.inference_mode():
        network(inputs)
        return [_pooled(output.float(), inputs, mean=True) for output in found]


def layer_slopes(
    network: Network, inputs: Inputs, f: Callable[[Shaped[Tensor, ...]], Float[Tensor, " batch"]]
) -> list[Float[Tensor, "batch _"]]:
    """Compute the gradient of f with respect to the output of each such block, summed over positions.

    Args:
        f: maps the network's outputs to one value per example.
    """
    with _outputs(network) as found, evaluating(network), torch.enable_grad():
        value = f(network(inputs)).sum()
        slopes = torch.autograd.grad(value, found, allow_unused=True)
    zeros = (torch.zeros_like(a) if b is None else b for a, b in zip(found, slopes))  # pyright: ignore
    return [_pooled(slope.float(), inputs, mean=False) for slope in zeros]


@contextmanager
def _outputs(network: Network) -> Generator[list[Tensor]]:
    """Collect the blocks' outputs in the forward passes made within."""
    found: list[Tensor] = []

    def note(_module: nn.Module, _inputs: object, output: object) -> None:
        tensors = [leaf for leaf in pytree.tree_leaves(output) if isinstance(leaf, Tensor)]
        if tensors and tensors[0].dim() >= 2 and tensors[0].is_floating_point():
            # Below frozen weights no output requires a gradient yet.
            found.append(tensors[0].requires_grad_(True) if torch.is_grad_enabled() else tensors[0])

    hooks = [block.module.register_forward_hook(note) for block in weighted_blocks(network)]
    try:
        yield found
    finally:
        for hook in hooks:
            hook.remove()


def _pooled(output: Float[Tensor, "batch ..."], inputs: Inputs, *, mean: bool) -> Float[Tensor, "batch features"]:
    """Average or sum over positions."""
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
