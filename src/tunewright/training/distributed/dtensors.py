"""Operations on sharded tensors (DTensors): each process computes on its own shard, and the results are reduced."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor, distributed, nn


def is_sharded(tensor: Tensor) -> bool:
    """Return whether each process keeps a shard of the tensor."""
    # A single process need not import the library: where it was never imported, nothing is sharded.
    library = sys.modules.get("torch.distributed.tensor")
    return library is not None and isinstance(tensor, library.DTensor)


def local_shard(tensor: Tensor) -> Tensor:
    """Return this process's shard of a sharded tensor, any other tensor unchanged."""
    return tensor.to_local() if is_sharded(tensor) else tensor  # pyright: ignore[reportCallIssue]


def all_reduce_found(found: Tensor, tensors: Sequence[Tensor]) -> Tensor:
    """Sum what was computed on the `local_shard` of the tensors over all processes, in place; unchanged where none is sharded."""
    if any(is_sharded(value) for value in tensors):
        distributed.all_reduce(found)
    return found


def all_gather(found: Tensor) -> list[Tensor]:
    """Return every process's tensor, all of one shape, by rank. Collective."""
    there = [torch.empty_like(found) for _ in range(distributed.get_world_size())]
    distributed.all_gather(there, found)
    return there


def divided_alike(tensors: Iterable[Tensor]) -> list[list[Any]]:
    """Group tensors by their device mesh: no operation takes tensors of several meshes at once."""
    found: dict[Any, list[Any]] = {}
    for tensor in tensors:
        found.setdefault(tensor.device_mesh if is_sharded(tensor) else None, []).append(tensor)  # pyright: ignore
    return list(found.values())


def clip_gradients(parameters: Sequence[nn.Parameter], most: float) -> None:
    """Scale all gradients so that their total norm is at most `most`, over all shards."""
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
    """Return how many processes keep the same shard of a tensor."""
    parts = 1
    for size, placement in zip(tensor.device_mesh.shape, tensor.placements):
        parts *= size if placement.is_shard() else 1
    return distributed.get_world_size() / parts
