"""Sets of examples in memory."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property

import torch
from torch import Tensor
from torch.nn.functional import pad

from tunewright.data.batches.batch import BaseExamples, Batch, Truth


@dataclass(frozen=True)
class TensorExamples(BaseExamples):
    """Examples of one size that fit in memory: inputs [N, ...], target [N, ...] or N tensors, rows [N]."""

    inputs: Tensor
    target: Truth
    rows: Tensor

    @property
    def lengths(self) -> None:
        return None

    @property
    def augmented(self) -> bool:
        return False

    def __len__(self) -> int:
        return self.inputs.shape[0]

    def to(self, device: torch.device) -> TensorExamples:
        """Return the same examples in a device's memory, so that no batch has to be copied there."""
        return TensorExamples(self.inputs.to(device), moved(self.target, device), self.rows)

    def batch(self, ids: Tensor, epoch: int | None = None) -> Batch:
        inputs = self.inputs.index_select(0, ids.to(self.inputs.device))
        return Batch(inputs, selected(self.target, ids), ids)


def selected(target: Truth, ids: Tensor) -> Truth:
    """Return the targets at the positions `ids` [B]."""
    if target is None or isinstance(target, list):
        return None if target is None else [target[index] for index in ids.tolist()]
    return target.index_select(0, ids.to(target.device))


def moved(target: Truth, device: torch.device | None) -> Truth:
    """Return targets on a device."""
    if target is None or isinstance(target, list):
        return None if target is None else [value.to(device) for value in target]
    return target.to(device)


@dataclass(frozen=True)
class Ragged:
    """Rows of different lengths end to end: values [ΣT, ...], starts [N + 1] int64."""

    values: Tensor
    starts: Tensor

    @property
    def lengths(self) -> Tensor:
        return self.starts[1:] - self.starts[:-1]

    def padded(self, ids: Tensor, fill: float, length: int) -> Tensor:
        """Return [B, length, ...]: the rows `ids`, filled up at their ends."""
        begins, ends = self.starts[ids].tolist(), self.starts[ids + 1].tolist()
        rows = [self.values[begin:end] for begin, end in zip(begins, ends)]
        found = torch.nn.utils.rnn.pad_sequence(rows, batch_first=True, padding_value=fill)
        return pad(found, (0, 0) * (found.dim() - 2) + (0, length - found.shape[1]), value=fill)


def few_lengths(lengths: Tensor, most: int | None = None) -> Tensor:
    """Return [N]: lengths rounded up, by a sixteenth or to a multiple of 8, but to no more than `most`: the longest where it is
    None.

    For each shape that they meet the libraries of products prepare something and keep it, a megabyte or so, and memory that
    was freed is of the wrong size for the next batch: benchmarks/results/plan_accuracy.md.
    """
    step = torch.exp2(torch.log2(lengths.clamp(min=1).double()).floor() - 4).long().clamp(min=8)
    if most is None:
        most = int(lengths.max()) if len(lengths) else 0
    return ((lengths + step - 1) // step * step).clamp(max=most)


@dataclass(frozen=True)
class TokenExamples(BaseExamples):
    """Texts as token ids of different lengths; a batch is padded to the longest of its `few_lengths`.

    types: which of two texts each token belongs to; None where there is one text.
    """

    tokens: Ragged
    types: Ragged | None
    target: Truth
    rows: Tensor
    padding: int
    """The id of the padding token."""
    cut: int = 0
    """How many of the texts were longer than the network reads, and were cut."""
    empty: int = 0
    """How many of the texts hold no token and are no examples."""
    device: torch.device | None = None

    @property
    def lengths(self) -> Tensor:
        return self._lengths

    @cached_property
    def _lengths(self) -> Tensor:
        return few_lengths(self.tokens.lengths)

    @property
    def augmented(self) -> bool:
        return False

    def __len__(self) -> int:
        return self.rows.shape[0]

    def to(self, device: torch.device) -> TokenExamples:
        return replace(self, device=device)

    def batch(self, ids: Tensor, epoch: int | None = None) -> Batch:
        length = int(self.lengths[ids].max())
        inputs = {
            "input_ids": self.tokens.padded(ids, self.padding, length).to(torch.int64),
            "attention_mask": (torch.arange(length) < self.tokens.lengths[ids][:, None]).long(),
        }
        if self.types is not None:
            inputs["token_type_ids"] = self.types.padded(ids, 0, length).to(torch.int64)
        target = moved(selected(self.target, ids), self.device)
        return Batch({name: value.to(self.device) for name, value in inputs.items()}, target, ids)
