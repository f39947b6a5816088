"""What a network is made of: for each block its output shape, parameters and floating-point operations."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.rnn import PackedSequence
from torch.overrides import TorchFunctionMode

from tunewright.models.core.network import Inputs, Network, evaluating
from tunewright.models.hub.quantization import size


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
    """Floating-point operations of one forward pass of one example, attention's products included; a multiplication with its
    addition counts as 2."""


def layer_table(network: Network, inputs: Inputs | None = None) -> list[LayerRow]:
    """Return the blocks in order, found by a pass of one empty example; nothing in the network changes.

    Args:
        inputs: a batch of one example, whose size the operations are counted for; None: the network's own.
    """
    blocks = network.blocks()
    shapes: dict[str, tuple[int, ...]] = {}
    flops = dict.fromkeys((block.title for block in blocks), 0)
    attention = _Products()
    hooks: list[Any] = []
    for block in blocks:

        def enter(part: nn.Module, inputs: Any, *, title: str = block.title) -> None:
            attention.inside.append(title)

        def leave(part: nn.Module, inputs: Any, output: Any, *, title: str = block.title) -> None:
            attention.inside.pop()
            shapes[title] = tuple(_tensor(output).shape[1:])

        def count(part: nn.Module, inputs: Any, output: Any, *, title: str = block.title) -> None:
            if inputs:
                flops[title] += _flops(part, inputs[0], _tensor(output))

        hooks += [block.module.register_forward_pre_hook(enter), block.module.register_forward_hook(leave)]
        hooks += [part.register_forward_hook(count) for part in block.module.modules() if not list(part.children())]
    with evaluating(network), torch.no_grad(), attention:
        network(network.example() if inputs is None else inputs)
    for hook in hooks:
        hook.remove()
    for title, number in attention.flops.items():
        flops[title] += number
    titles = network.layer_titles()
    return [
        LayerRow(
            block=block.title,
            kind=titles.get(block.title) or _class(block.module),
            output_shape=shapes.get(block.title, ()),
            parameters=sum(size(value) for value in block.parameters().values()),
            flops=flops[block.title],
        )
        for block in blocks
    ]


class _Products(TorchFunctionMode):
    """Counts products of matrices where they are made, those of attention among them, which no layer makes by itself."""

    def __init__(self) -> None:
        super().__init__()
        self.inside: list[str] = []
        """The blocks that the pass is in."""
        self.flops: Counter[str] = Counter()

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        output = func(*args, **(kwargs or {}))
        if self.inside and func is F.scaled_dot_product_attention:
            # Q Kᵀ, 2·T·S·D for each head, and the weights times V, 2·T·S·D'.
            query, key, value = (
                (kwargs or {}).get(name, given) for name, given in zip(("query", "key", "value"), args)
            )
            scores = query.numel() // query.shape[-1] * key.shape[-2]
            self.flops[self.inside[-1]] += 2 * scores * (query.shape[-1] + value.shape[-1])
        elif self.inside and func in _MATRIX_PRODUCTS:
            first = args[_MATRIX_PRODUCTS[func]]
            self.flops[self.inside[-1]] += 2 * first.shape[-1] * output.numel()
        return output


# Each with the place of the first matrix among its arguments.
_MATRIX_PRODUCTS: dict[Any, int] = {
    **dict.fromkeys((F.linear, torch.matmul, torch.bmm, Tensor.matmul, Tensor.__matmul__, Tensor.bmm), 0),
    **dict.fromkeys((torch.addmm, torch.baddbmm), 1),
}


def _class(module: nn.Module) -> str:
    """Return what a person knows it as: our quick dropout is dropout."""
    return "Dropout" if isinstance(module, nn.Dropout) else type(module).__name__


def _tensor(output: Any) -> Tensor:
    """Return the first tensor of what a module gives."""
    while not isinstance(output, Tensor):
        output = next(iter(output.values())) if isinstance(output, dict) else output[0]
    return output


def _flops(module: nn.Module, inputs: Tensor, output: Tensor) -> int:
    """Beside products of matrices. Convolution: 2·(in/groups)·k²·out·H·W. Norms: 5 a value. Pooling: k² an output. GRU and LSTM, each
    step and direction: 2·gates·units·(in + units). Activations: 1 a value. What only moves data: 0."""
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
        moments = len(inputs.data) if isinstance(inputs, PackedSequence) else inputs.shape[1]
        return moments * directions * step
    if isinstance(module, nn.ReLU | nn.ReLU6 | nn.GELU | nn.SiLU | nn.Tanh | nn.Sigmoid | nn.LeakyReLU):
        return output.numel()
    return 0
