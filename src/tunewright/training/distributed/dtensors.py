"""Tensors that are divided among processes (DTensors): what each process finds in its own part, and what that is over all."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor, distributed, nn


def is_sharded(tensor: Tensor) -> bool:
    """Whether each process keeps a part of it."""
    # Whoever trains alone need not wait for the library: where it was never loaded, nothing is divided.
    library = sys.modules.get("torch.distributed.tensor")
    return library is not None and isinstance(tensor, library.DTensor)


def local_shard(tensor: Tensor) -> Tensor:
    """Of a divided tensor what this process keeps; any other as it is."""
    return tensor.to_local() if is_sharded(tensor) else tensor  # pyright: ignore[reportCallIssue]


def all_reduce_found(found: Tensor, tensors: Sequence[Tensor]) -> Tensor:
    """The sums over all processes of numbers that were found on the `local_shard` of the tensors; as they are where none is divided."""
    if any(is_sharded(value) for value in tensors):
        distributed.all_reduce(found)
    return found


def all_gather(found: Tensor) -> list[Tensor]:
    """What each process has found, numbers of one shape, in the order of the processes. Collective."""
    there = [torch.empty_like(found) for _ in range(distributed.get_world_size())]
    distributed.all_gather(there, found)
    return there


def divided_alike(tensors: Iterable[Tensor]) -> list[list[Any]]:
    """Those that are divided among the same processes together: no operation takes others at once."""
    found: dict[Any, list[Any]] = {}
    for tensor in tensors:
        found.setdefault(tensor.device_mesh if is_sharded(tensor) else None, []).append(tensor)  # pyright: ignore
    return list(found.values())


def clip_gradients(parameters: Sequence[nn.Parameter], most: float) -> None:
    """Scale all gradients so that their norm together is at most that; of divided ones over all processes."""
    gradients = [value.grad for value in parameters if value.grad is not None]
    if not any(map(is_sharded, gradients)):
        nn.utils.clip_grad_norm_(parameters, most)
        return
    squares = torch.stack([local_shard(grad).square().sum() / _copies(grad) for grad in gradients]).sum()
    distributed.all_reduce(squares)
    scale = (most / (squares.sqrt() + 1e-6)).clamp(max=1.0)
    for grad in gradients:
        local_shard(grad).mul_(scale)


def _copies(tensor: Any) -> float:
    """How many processes keep the same part of a divided tensor."""
    parts = 1
    for size, placement in zip(tensor.device_mesh.shape, tensor.placements):
        parts *= size if placement.is_shard() else 1
    return distributed.get_world_size() / parts
