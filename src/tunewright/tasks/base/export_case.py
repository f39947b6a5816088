"""What a model is outside of Tunewright: tensors in, tensors out, by name; and real tensors to try it with."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import pyarrow as pa
import torch
from torch import Tensor, nn

from tunewright.data.batches.batch import Examples
from tunewright.models.core.network import Network
from tunewright.tasks.base.encoders import Encoders

# Inputs by name, and what they are called where there is one tensor.
Named = dict[str, Tensor]
# Of each input, by name, the axes whose size a caller chooses.
Free = dict[str, list[int]]
SINGLE = "inputs"


class HandedOn(nn.Module):
    """A network whose inputs are tensors in a fixed order.

    Args:
        compute: the inputs in order → the outputs; None: the network's own forward pass.
    """

    def __init__(self, network: Network, names: list[str], compute: Callable[..., Tensor] | None = None) -> None:
        super().__init__()
        self.network = network
        self.names = names
        self.compute = compute

    def forward(self, *values: Tensor) -> Tensor:
        """Return logits [B, K], [B, T, V] or [B, S, K], or what `compute` gives."""
        if self.compute is not None:
            return self.compute(*values)
        return self.network(values[0] if self.names == [SINGLE] else dict(zip(self.names, values)))


@dataclass(frozen=True, kw_only=True)
class Graph:
    """One file of operations. Several in a row are computed one after the other, each once or many times."""

    stem: str
    """The beginning of the file's name."""
    module: nn.Module
    inputs: Named
    """Inputs to trace it with, by name in their order."""
    free: Free
    output: str = "outputs"
    """What its output is called among the inputs of the next graph."""


@dataclass(frozen=True, kw_only=True)
class Trial:
    """A network as it is handed on, and examples that it is tried with."""

    module: HandedOn
    count: int
    """Examples."""
    batch: Callable[[list[int]], Named]
    """The examples at these positions."""
    target: Tensor | None
    """[count], where there is a target."""
    tokenizer: Any = None
    """Of a language model."""
    axes: Free | None = None
    """Of each input the axes in which examples may differ; None: seen from examples."""
    split: Callable[[Trial], list[Graph]] | None = None
    """The graphs that the network is written as; None: one."""
    origin: str | None = None
    """The hash of the model's folder, which the file that is written names."""

    @cached_property
    def _by_size(self) -> list[int]:
        """Examples by how many numbers they have."""
        return sorted(range(self.count), key=lambda index: sum(value.numel() for value in self.batch([index]).values()))

    @cached_property
    def longest(self) -> Named:
        """A batch of three, of the longest example."""
        return self.batch([self._by_size[-1]] * 3)

    @cached_property
    def free(self) -> Free:
        """Of each input the axes whose size is free: those in which two of the shortest example and three of the longest differ."""
        return self.axes or differing(self.batch([self._by_size[0]] * 2), self.longest)

    @property
    def graphs(self) -> list[Graph]:
        """The files of operations that the network becomes, in the order of computation."""
        if self.split is not None:
            return self.split(self)
        return [Graph(stem="model", module=self.module, inputs=self.longest, free=self.free)]


def tensor_case(network: Network, preprocessor: Encoders, table: pa.Table) -> Trial:
    """Return a network of tensors as it is exported, with the rows of a table as examples."""
    target = preprocessor.target
    known = target is not None and target.column in table.column_names
    examples: Examples = preprocessor.inputs.examples(
        table, target.encode(table) if known and target is not None else None
    )
    batch = batches_of(examples)
    found = examples.target
    return Trial(
        module=HandedOn(network, list(batch([0]))),
        count=len(examples),
        batch=batch,
        target=found if isinstance(found, Tensor) else None,
    )


def batches_of(examples: Examples) -> Callable[[list[int]], Named]:
    """Return a function that gives the inputs of some examples by name."""

    def batch(ids: list[int]) -> Named:
        found = examples.batch(torch.tensor(ids)).inputs
        return {SINGLE: found} if isinstance(found, Tensor) else dict(found)

    return batch


def differing(one: Mapping[str, Tensor], other: Mapping[str, Tensor]) -> Free:
    """Return the axes in which two batches of different sizes differ."""
    return {
        name: [axis for axis in range(a.dim()) if a.shape[axis] != b.shape[axis]]
        for (name, a), b in zip(one.items(), other.values())
    }
