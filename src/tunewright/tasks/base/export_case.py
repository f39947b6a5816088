"""What a model is outside of Tunewright: tensors in, tensors out, by name; and real tensors to try it with."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from torch import Tensor, nn

from tunewright.models.core.network import Network
from tunewright.models.recommendation.base import Recommender

# Inputs by name, and what they are called where there is one tensor.
Named = dict[str, Tensor]
# Of each input, by name, the axes whose size a caller chooses.
Free = dict[str, list[int]]
SINGLE = "inputs"
DICTATED_AT_ONCE = 8


class HandedOn(nn.Module):
    """A network whose inputs are tensors in a fixed order."""

    def __init__(self, network: Network, names: list[str]) -> None:
        super().__init__()
        self.network = network
        self.names = names

    def forward(self, *values: Tensor) -> Tensor:
        """Logits [B, K], [B, T, V] or [B, S, K]; of a recommender the scores of all items [B, I]."""
        if isinstance(self.network, Recommender):
            return self.network.all_scores(values[0], values[1] if len(values) > 1 else None)
        return self.network(values[0] if self.names == [SINGLE] else dict(zip(self.names, values)))


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


def differing(one: Mapping[str, Tensor], other: Mapping[str, Tensor]) -> Free:
    """The axes in which two batches of different sizes differ."""
    return {
        name: [axis for axis in range(a.dim()) if a.shape[axis] != b.shape[axis]]
        for (name, a), b in zip(one.items(), other.values())
    }
