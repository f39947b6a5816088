"""What a network is made of: for each block its output shape, parameters and floating-point operations."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from tunewright.models.network import AnyNetwork, Network, evaluating


@dataclass(frozen=True, kw_only=True)
class LayerRow:
    """One block of a network."""

    block: str
    """Part and name: "backbone.1_dense"."""
    kind: str
    """As a person would say it: "dense 128, relu"."""
    output_shape: tuple[int, ...]
    parameters: int
    flops: int
    """Floating-point operations of one forward pass of one example; a multiplication with its addition counts as 2."""


def layer_table(network: AnyNetwork) -> list[LayerRow]:
    """The blocks in order, found by a pass of one empty example; nothing in the network changes."""
    blocks = network.blocks()
    shapes: dict[str, tuple[int, ...]] = {}
    flops = dict.fromkeys((block.title for block in blocks), 0)
    hooks: list[Any] = []
    for block in blocks:

        def note(part: nn.Module, inputs: Any, output: Any, *, title: str = block.title) -> None:
            shapes[title] = tuple(_tensor(output).shape[1:])

        def count(part: nn.Module, inputs: Any, output: Any, *, title: str = block.title) -> None:
            if inputs:
                flops[title] += _flops(part, inputs[0], _tensor(output))

        hooks.append(block.module.register_forward_hook(note))
        hooks += [part.register_forward_hook(count) for part in block.module.modules() if not list(part.children())]
    with evaluating(network), torch.no_grad():
        network(network.example())
    for hook in hooks:
        hook.remove()
    titles = _titles(network) if isinstance(network, Network) else {}
    return [
        LayerRow(
            block=block.title,
            kind=titles.get(block.title) or type(block.module).__name__,
            output_shape=shapes.get(block.title, ()),
            parameters=sum(value.numel() for value in block.parameters().values()),
            flops=flops[block.title],
        )
        for block in blocks
    ]


def _tensor(output: Any) -> Tensor:
    """The first tensor of what a module gives."""
    while not isinstance(output, Tensor):
        output = next(iter(output.values())) if isinstance(output, dict) else output[0]
    return output


def _titles(network: Network) -> dict[str, str]:
    described = network.described
    titles = {f"backbone.{name}": name.replace("_", " ") for name, _ in network.backbone.named_children()}
    parts = (
        ("head", network.head, described["head"]),
        ("backbone", network.backbone, described["backbone"].get("layers", [])),
    )
    for part, sequence, layers in parts:
        for (name, _), layer in zip(sequence.named_children(), layers):
            titles[f"{part}.{name}"] = _title(layer)
    return titles


def _title(layer: object) -> str:
    if not isinstance(layer, dict):
        return str(layer)
    (name, value), *options = layer.items()
    rest = [str(option) if key == "activation" else f"{key} {option}" for key, option in options]
    return ", ".join([f"{name} {value}", *rest])


def _flops(module: nn.Module, inputs: Tensor, output: Tensor) -> int:
    """Dense: 2·in·out. Convolution: 2·(in/groups)·k²·out·H·W. Norms: 5 a value. Pooling: k² an output. GRU and LSTM, each
    step and direction: 2·gates·units·(in + units). Activations: 1 a value. What only moves data: 0."""
    if isinstance(module, nn.Linear):
        return 2 * module.in_features * output.numel()
    if isinstance(module, nn.Conv2d):
        return 2 * (module.in_channels // module.groups) * math.prod(module.kernel_size) * output.numel()
    if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d | nn.LayerNorm | nn.GroupNorm):
        return 5 * output.numel()
    if isinstance(module, nn.MaxPool2d | nn.AvgPool2d):
        size = module.kernel_size
        return (size**2 if isinstance(size, int) else math.prod(size)) * output.numel()
    if isinstance(module, nn.GRU | nn.LSTM):
        gates = 4 if isinstance(module, nn.LSTM) else 3
        directions = 2 if module.bidirectional else 1
        step = 2 * gates * module.hidden_size * (module.input_size + module.hidden_size)
        return inputs.shape[1] * directions * step
    if isinstance(module, nn.ReLU | nn.ReLU6 | nn.GELU | nn.SiLU | nn.Tanh | nn.Sigmoid | nn.LeakyReLU):
        return output.numel()
    return 0
