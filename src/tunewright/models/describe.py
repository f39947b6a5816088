"""What a network is made of: for each block its output shape, parameters and floating-point operations."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from tunewright.models.network import Network


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


def layer_table(network: Network) -> list[LayerRow]:
    """The blocks in order, found by a pass of one empty example; nothing in the network changes."""
    modes = [(module, module.training) for module in network.modules()]
    network.eval()
    rows: list[LayerRow] = []
    value = torch.zeros(1, *network.described["input_shape"], device=next(network.parameters()).device)
    titles = _titles(network)
    for part, sequence in (("backbone", network.backbone), ("head", network.head)):
        for name, module in sequence.named_children():
            value, flops = _pass(module, value)
            rows.append(
                LayerRow(
                    block=f"{part}.{name}",
                    kind=titles[f"{part}.{name}"],
                    output_shape=tuple(value.shape[1:]),
                    parameters=sum(parameter.numel() for parameter in module.parameters()),
                    flops=flops,
                )
            )
    for module, mode in modes:
        module.training = mode
    return rows


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


def _pass(module: nn.Module, value: Tensor) -> tuple[Tensor, int]:
    """The output of a module, and the operations of every part of it that has a formula."""
    total = 0

    def count(part: nn.Module, inputs: tuple[Tensor, ...], output: Tensor | tuple[Tensor, ...]) -> None:
        nonlocal total
        total += _flops(part, inputs[0], output if isinstance(output, Tensor) else output[0])

    hooks = [part.register_forward_hook(count) for part in module.modules() if not list(part.children())]
    with torch.no_grad():
        output = module(value)
    for hook in hooks:
        hook.remove()
    return output, total


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
    if isinstance(module, nn.ReLU | nn.GELU | nn.SiLU | nn.Tanh | nn.Sigmoid | nn.LeakyReLU):
        return output.numel()
    return 0
