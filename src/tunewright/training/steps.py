"""The batches of an epoch, in the order in which they are trained on."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol

from tunewright.data.batches.batch import Batch, Examples


class Steps(Protocol):
    """An epoch's steps, each a list of micro-batches; `steps(epoch, start)` begins in its middle."""

    @property
    def examples(self) -> Examples: ...

    @property
    def steps_per_epoch(self) -> int: ...

    def steps(self, epoch: int, *, start: int = 0) -> Iterator[list[Batch]]: ...
