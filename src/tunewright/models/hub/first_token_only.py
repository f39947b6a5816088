"""Compute the first token alone in a text classifier's last layer, after its attention, where the head reads no other.

Attention still looks at all tokens. What follows it is two thirds of that layer's work and need not be done for outputs
that nobody reads: their gradients are zero, so training is the same too.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from tunewright.models.core.meta_weights import is_meta
from tunewright.models.core.network import Network, evaluating
from tunewright.models.hub.hf_network import Transformer

# What the attention of a layer is called where the rest of the layer takes nothing but its output, as in BERT's.
ATTENTION = "attention"
TOLERANCE = 1e-5


def narrow_last_layer(network: Network) -> bool:
    """Let the last layer go on with the first token after its attention; whether the network allows it.

    It is tried on texts of different lengths: where anything else comes out, or nothing is saved, all stays as it was. Of a network without
    numbers only shapes can be compared.
    """
    if not isinstance(network, Transformer) or not network.purpose.reads_one_token:
        return False
    layers = [block.module for block in network.blocks() if block.part == "backbone"]
    last = next((layer for layer in reversed(layers) if isinstance(getattr(layer, ATTENTION, None), nn.Module)), None)
    if last is None:
        return False
    example = network.example()
    assert isinstance(example, dict)
    length = example["input_ids"].shape[1]
    ids = (torch.arange(2 * length, device=example["input_ids"].device) % 3 + 1).reshape(2, length)
    mask = torch.ones_like(ids)
    mask[1, length // 2 :] = 0
    inputs = {"input_ids": ids, "attention_mask": mask}
    narrowed: list[bool] = []
    with evaluating(network), torch.no_grad():
        expected = network(inputs)
        seen = last.register_forward_hook(lambda _m, _i, output: narrowed.append(_first(output).shape[1] == 1))
        hook = last.get_submodule(ATTENTION).register_forward_hook(_to_first_token)
        try:
            found = network(inputs)
            same = found.shape == expected.shape and (
                is_meta(found) or torch.allclose(found, expected, rtol=TOLERANCE, atol=TOLERANCE)
            )
        except (RuntimeError, ValueError, IndexError, TypeError):
            same = False
        finally:
            seen.remove()
    if same and narrowed == [True]:
        return True
    hook.remove()
    return False


def _to_first_token(_module: nn.Module, _inputs: Any, output: Any) -> Any:
    if isinstance(output, tuple):
        return (output[0][:, :1], *output[1:])
    return output[:, :1]


def _first(output: Any) -> Tensor:
    return output[0] if isinstance(output, tuple) else output
