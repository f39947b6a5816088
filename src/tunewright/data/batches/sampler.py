"""Which examples make up which step: a function of (seed, epoch) only, so that any step can be found again."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import torch
from torch import Tensor

from tunewright.data.batches.batch import Batch, Examples, Inputs
from tunewright.random import permutation

# Batches of examples of about one length are cut from so many batches' worth of examples in random order: more would
# pad less, but make the batches less random.
WINDOW = 50
# An evaluation batch has at most so many examples; and so many tokens, or numbers such as those of pictures.
EVALUATION_BATCH = 1024
EVALUATION_TOKENS = 16_384
EVALUATION_VALUES = 4_000_000


@dataclass(frozen=True, kw_only=True)
class Batches:
    """How an epoch over `examples` is cut up: each example once, in an order drawn from (seed, epoch)."""

    examples: Examples
    batch_size: int
    accumulate: int = 1
    seed: int
    part: int = 0
    parts: int = 1
    """Of each batch every `parts`-th example is this process's, from the `part`-th on."""
    in_step: bool = False
    """Every process has as many micro-batches: where it has no example of one, another's is a placeholder and does not count."""
    most: int | None = None
    """The sum of the padded lengths in a batch at most, in place of `batch_size`; examples that are longer are alone."""

    @property
    def steps_per_epoch(self) -> int:
        """Optimiser steps in an epoch: ⌈⌈N / batch_size⌉ / accumulate⌉."""
        batches = -(-len(self.examples) // self.batch_size) if self.most is None else len(self._buckets[1])
        return -(-batches // self.accumulate)

    def steps(self, epoch: int, *, start: int = 0) -> Iterator[list[Batch]]:
        """Yield the micro-batches of each optimiser step of an epoch, from step `start` of it on."""
        batches = self._batches(epoch)
        for step in range(start, self.steps_per_epoch):
            chosen = batches[step * self.accumulate : (step + 1) * self.accumulate]
            yield [batch for ids in chosen if (batch := self._own(ids, epoch)) is not None]

    def _own(self, ids: Tensor, epoch: int) -> Batch | None:
        """This process's part of a batch; None where it has none."""
        if len(own := ids[self.part :: self.parts]):
            return self.examples.batch(own, epoch)
        return replace(self.examples.batch(ids[:1], epoch), counts=False) if self.in_step else None

    def sizes(self, epoch: int) -> list[int]:
        """Of each optimiser step of an epoch: its examples, or where lengths differ the padded length of them all."""
        lengths = self.examples.lengths
        each = [len(ids) * (1 if lengths is None else int(lengths[ids].max())) for ids in self._batches(epoch)]
        return [sum(each[start : start + self.accumulate]) for start in range(0, len(each), self.accumulate)]

    def _batches(self, epoch: int) -> list[Tensor]:
        """Return the positions of each batch's examples. Where lengths differ, examples of about one length come together.

        Every batch but the last is full, and each example comes once, so each weighs the same as without the sorting.
        """
        order = torch.from_numpy(permutation(self.seed, "order", epoch, len(self.examples)))
        if self.most is not None:
            return self._by_length(order, epoch)
        if self.examples.lengths is None:
            return list(order.split(self.batch_size))
        batches: list[Tensor] = []
        for window in order.split(self.batch_size * WINDOW):
            by_length = window[torch.argsort(self.examples.lengths[window], stable=True)]
            batches += by_length.split(self.batch_size)
        full = len(order) // self.batch_size
        mixed = permutation(self.seed, "batches", epoch, full)
        return [batches[index] for index in mixed] + batches[full:]

    @cached_property
    def _buckets(self) -> tuple[Tensor, list[tuple[int, int]]]:
        """The bucket of each example, and for each batch of an epoch its bucket and size.

        In a bucket the longest is at most a seventh longer than the shortest, so that the batches of every epoch are as many,
        and waste little.
        """
        assert self.most is not None and self.examples.lengths is not None
        lengths = self.examples.lengths.clamp(min=1)
        bucket = torch.ceil(torch.log(lengths.double()) / math.log(8 / 7)).long()
        plan: list[tuple[int, int]] = []
        for number in bucket.unique().tolist():
            within = lengths[bucket == number]
            size, left = max(1, self.most // int(within.max())), len(within)
            while left > 0:
                plan.append((number, min(size, left)))
                left -= size
        return bucket, plan

    def _by_length(self, order: Tensor, epoch: int) -> list[Tensor]:
        bucket, plan = self._buckets
        waiting = {number: order[bucket[order] == number] for number in bucket.unique().tolist()}
        batches: list[Tensor] = []
        for number, size in plan:
            batches.append(waiting[number][:size])
            waiting[number] = waiting[number][size:]
        return [batches[index] for index in permutation(self.seed, "batches", epoch, len(batches))]


def in_order(examples: Examples, batch_size: int) -> Iterator[Batch]:
    """Yield all examples once: in their own order, or by length where lengths differ (a batch's `ids` say which they are)."""
    return (examples.batch(ids) for ids in ids_in_order(examples, batch_size))


def ids_in_order(examples: Examples, batch_size: int) -> Iterator[Tensor]:
    """Yield which examples stand in each batch of `in_order`."""
    if examples.lengths is None:
        one = examples.batch(torch.arange(min(1, len(examples)))).inputs
        if isinstance(one, Tensor):
            most = EVALUATION_VALUES // max(1, one.numel())
        else:
            most = EVALUATION_TOKENS // max(1, *(value.numel() for value in one.values()))
        size = max(1, min(batch_size, most))
        yield from torch.arange(len(examples)).split(size)
        return
    order = torch.argsort(examples.lengths, descending=True, stable=True)
    while len(order):
        size = max(1, min(batch_size, EVALUATION_TOKENS // max(1, int(examples.lengths[order[0]]))))
        yield order[:size]
        order = order[size:]


def of_all(examples: Examples, batch_size: int, compute: Callable[[Inputs], Sequence[Tensor]]) -> list[Tensor]:
    """Return what is computed of the inputs, batch by batch: each result [N, ...] for all examples, in their own order."""
    ids: list[Tensor] = []
    pieces: list[Sequence[Tensor]] = []
    for batch in in_order(examples, batch_size):
        ids.append(batch.ids)
        pieces.append(compute(batch.inputs))
    order = torch.argsort(torch.cat(ids))
    return [torch.cat(parts)[order] for parts in zip(*pieces, strict=True)]
