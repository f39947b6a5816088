"""Which examples make up which step: a function of (seed, epoch) only, so that any step can be found again."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from tunewright.random import permutation


@dataclass(frozen=True, slots=True)
class Batch:
    """A few examples as tensors.

    inputs: [B, ...] what the network gets; target: [B] or None when there is no label; ids: [B] int64, the examples'
    positions in their split, on the CPU.
    """

    inputs: Tensor
    target: Tensor | None
    ids: Tensor


class Examples(Protocol):
    """A split of the data, ready to be drawn from in any order."""

    @property
    def rows(self) -> Tensor:
        """[N] int64: each example's row number in the source, counted from 1, to name it to people."""
        ...

    def __len__(self) -> int: ...

    def batch(self, ids: Tensor) -> Batch:
        """The examples at the positions `ids` [B] int64."""
        ...


@dataclass(frozen=True)
class TensorExamples:
    """Examples that fit in memory: inputs [N, ...], target [N], rows [N]."""

    inputs: Tensor
    target: Tensor | None
    rows: Tensor

    def __len__(self) -> int:
        return self.inputs.shape[0]

    def to(self, device: torch.device) -> TensorExamples:
        """The same examples in a device's memory, so that no batch has to be copied there."""
        target = None if self.target is None else self.target.to(device)
        return TensorExamples(self.inputs.to(device), target, self.rows)

    def batch(self, ids: Tensor) -> Batch:
        where = ids.to(self.inputs.device)
        target = None if self.target is None else self.target.index_select(0, where)
        return Batch(self.inputs.index_select(0, where), target, ids)


@dataclass(frozen=True, kw_only=True)
class Batches:
    """How an epoch over `examples` is cut up: each example once, in an order drawn from (seed, epoch)."""

    examples: Examples
    batch_size: int
    accumulate: int = 1
    seed: int

    @property
    def steps_per_epoch(self) -> int:
        """Optimiser steps in an epoch: ⌈⌈N / batch_size⌉ / accumulate⌉."""
        batches = -(-len(self.examples) // self.batch_size)
        return -(-batches // self.accumulate)

    def steps(self, epoch: int, *, start: int = 0) -> Iterator[list[Batch]]:
        """The micro-batches of each optimiser step of an epoch, from step `start` of it on."""
        order = torch.from_numpy(permutation(self.seed, "order", epoch, len(self.examples)))
        batches = order.split(self.batch_size)
        for step in range(start, self.steps_per_epoch):
            chosen = batches[step * self.accumulate : (step + 1) * self.accumulate]
            yield [self.examples.batch(ids) for ids in chosen]


def in_order(examples: Examples, batch_size: int) -> Iterator[Batch]:
    """All examples once, in their own order: for evaluation."""
    for ids in torch.arange(len(examples)).split(batch_size):
        yield examples.batch(ids)
