"""Each layer of a gpt divided among processes: its heads, and the hidden features of its feed-forward part (tensor parallelism).

Shoeybi et al. 2019, "Megatron-LM", section 3: queries, keys, values, gate and up are divided by rows, the matrices behind them by columns. So each
process computes some heads and some hidden features of the same texts, and what comes out of attention and of the feed-forward part
is added up: one sum for each on the way there, and one on the way back. Embeddings, norms and the output matrix are the same in all.

The model file knows nothing of it. Weights are DTensors; while a part computes, each of its matrices is this process's own piece.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, distributed, nn

from tunewright.models.core.network import Network

if TYPE_CHECKING:
    from torch.distributed.device_mesh import DeviceMesh


def narrow_layers(network: Network, count: int) -> set[str]:
    """Leave each layer the heads and hidden features of one of so many processes: what one of them holds and computes.

    Returns:
        the names of the weights that became smaller.
    """
    names = {id(layer): f"{name}.weight" for name, layer in network.named_modules()}
    narrowed: set[str] = set()
    for part, matrices in network.tensor_parallel_plan():
        for layer, dimension in matrices:
            whole = layer.weight
            piece = whole.detach().narrow(dimension, 0, whole.shape[dimension] // count).clone()
            layer.weight = nn.Parameter(piece, whole.requires_grad)
            narrowed.add(names[id(layer)])
        if (shared := getattr(part, "shared", None)) is not None:
            part.shared = shared // count
            part.register_forward_pre_hook(_mask_of_own_heads)
    return narrowed


def divide_layers(network: Network, mesh: DeviceMesh) -> None:
    """Divide the layers of a gpt that has meta weights among the processes of a mesh of one dimension."""
    from torch.distributed.tensor import DTensor, Shard  # takes long to load, and who trains alone needs none of it

    narrow_layers(network, mesh.size())
    for part, matrices in network.tensor_parallel_plan():
        for layer, dimension in matrices:
            piece = layer.weight
            divided = DTensor.from_local(piece.detach(), mesh, [Shard(dimension)], run_check=False)
            layer.weight = nn.Parameter(divided, piece.requires_grad)
        _Own(part, [layer for layer, _ in matrices], mesh.get_group())


def other_dimension(parameter: nn.Parameter) -> Any:
    """Return where data parallelism divides a weight once more: along what tensor parallelism left whole; None: where it always
    does."""
    from torch.distributed.tensor import DTensor, Shard

    return Shard(1 - parameter.placements[0].dim) if isinstance(parameter, DTensor) else None  # pyright: ignore


def _mask_of_own_heads(attention: Any, given: tuple[Any, ...]) -> tuple[Any, ...]:
    """Return the mask of plain products has a copy for each head."""
    states, rotation, mask, *others = given
    if isinstance(mask, Tensor) and mask.dim() == 3:
        mask = mask.unflatten(0, (len(states), -1))[:, : attention.shared * attention.groups].flatten(0, 1)
    return (states, rotation, mask, *others)


class _Own:
    """Gives a part of a layer this process's pieces while it computes, and adds up what all processes make."""

    def __init__(self, part: nn.Module, layers: list[nn.Linear], group: distributed.ProcessGroup) -> None:
        self.layers, self.group = layers, group
        self.whole: list[Tensor] = []
        part.register_forward_pre_hook(self._enter)
        part.register_forward_hook(self._leave, always_call=True)

    def _enter(self, _part: nn.Module, given: tuple[Any, ...]) -> tuple[Any, ...]:
        self.whole = [layer.weight for layer in self.layers]
        for layer, weight in zip(self.layers, self.whole):
            layer._parameters["weight"] = weight.to_local()  # pyright: ignore
        return (_SumBack.apply(given[0], self.group), *given[1:])

    def _leave(self, _part: nn.Module, _given: Any, made: Tensor | None) -> Tensor | None:
        for layer, weight in zip(self.layers, self.whole):
            layer._parameters["weight"] = weight  # pyright: ignore
        return None if made is None else _Sum.apply(made, self.group)  # pyright: ignore


class _SumBack(torch.autograd.Function):
    """The same on the way there; on the way back the gradients of all processes' pieces are added up."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, group: distributed.ProcessGroup) -> Tensor:
        ctx.group = group
        return x.view_as(x)

    @staticmethod
    def backward(ctx: Any, *slopes: Tensor) -> tuple[Tensor, None]:
        total = slopes[0].contiguous().clone()
        distributed.all_reduce(total, group=ctx.group)
        return total, None


class _Sum(torch.autograd.Function):
    """What all processes made, added up; on the way back each gets the same."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, group: distributed.ProcessGroup) -> Tensor:
        total = x.contiguous().clone()
        distributed.all_reduce(total, group=group)
        return total

    @staticmethod
    def backward(ctx: Any, *slopes: Tensor) -> tuple[Tensor, None]:
        return slopes[0], None
