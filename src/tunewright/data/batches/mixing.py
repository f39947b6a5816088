"""How often an epoch reads each source of a mix: a weight of 2 reads it twice, one of 0.5 in every second epoch.

Nothing is drawn with luck: a source's examples are gone through in an order of its own, again and again, and an epoch goes on
where the one before stopped. So each example comes as often as any other of its source, give or take one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from tunewright.data.batches.batch import BaseExamples, Batch
from tunewright.data.batches.packing import PackedExamples
from tunewright.random import permutation


@dataclass(frozen=True, kw_only=True)
class MixedExamples(BaseExamples):
    """The rows of texts from several sources, each as often as it is to be read in an epoch."""

    examples: PackedExamples
    starts: tuple[int, ...]
    """[sources + 1]: where each source's examples start among all, and the end."""
    weights: Mapping[str, float]
    """By the sources' names, in the order of their examples."""
    seed: int

    @cached_property
    def counts(self) -> np.ndarray:
        """[sources]: how many examples of each an epoch reads; one at least."""
        lengths = np.diff(self.starts)
        return np.maximum(np.round(lengths * np.array(list(self.weights.values()))), lengths > 0).astype(np.int64)

    @cached_property
    def _orders(self) -> list[np.ndarray]:
        return [
            permutation(self.seed, "mix", source, int(length)) for source, length in enumerate(np.diff(self.starts))
        ]

    @property
    def tokens(self) -> np.ndarray:
        return self.examples.tokens

    @property
    def rows(self) -> Tensor:
        return self.examples.rows[self._chosen(np.arange(len(self)), 0)[0]]

    @property
    def target(self) -> None:
        return None

    @property
    def lengths(self) -> None:
        return None

    @property
    def augmented(self) -> bool:
        return True

    def __len__(self) -> int:
        return int(self.counts.sum())

    def to(self, device: torch.device) -> MixedExamples:
        return replace(self, examples=self.examples.to(device))

    def one_row_each(self) -> MixedExamples:
        self.examples.one_row_each()
        return self

    def batch(self, ids: Tensor, epoch: int | None = None) -> Batch:
        chosen, passes = self._chosen(ids.numpy(), epoch or 0)
        # Each pass through a source cuts its texts at other places.
        rows = [torch.from_numpy(chosen[passes == number]) for number in np.unique(passes)]
        parts = [self.examples.batch(some, int(number)) for some, number in zip(rows, np.unique(passes), strict=True)]
        back = torch.from_numpy(np.argsort(np.argsort(passes, kind="stable"), kind="stable"))
        device = self.examples.device
        places = back if device is None else back.to(device)
        named = {name: torch.cat([part.named[name] for part in parts])[places] for name in parts[0].named}
        targets = [part.target for part in parts if part.target is not None]
        return Batch(named, torch.cat(targets)[places], ids)

    def _chosen(self, ids: np.ndarray, epoch: int) -> tuple[np.ndarray, np.ndarray]:
        """Return the example at each place of an epoch, and how often its source has been gone through before: [N] and [N]."""
        ends = np.cumsum(self.counts)
        source = np.searchsorted(ends, ids, side="right")
        lengths = np.diff(self.starts)
        reached = epoch * self.counts[source] + ids - (ends - self.counts)[source]
        passes, place = np.divmod(reached, lengths[source])
        chosen = np.empty(len(ids), np.int64)
        for number, order in enumerate(self._orders):
            here = source == number
            chosen[here] = self.starts[number] + order[place[here]]
        return chosen, passes


def mixed(
    examples: PackedExamples, first_rows: Sequence[int], weights: Mapping[str, float], seed: int
) -> MixedExamples:
    """Examples of several sources by their weights.

    Args:
        first_rows: the row number with which each source's rows start, rising.
    """
    source = np.searchsorted(np.array(first_rows), examples.rows.numpy(), side="right") - 1
    starts = (*np.searchsorted(source, np.arange(len(weights))).tolist(), len(examples))
    return MixedExamples(examples=examples, starts=starts, weights=weights, seed=seed)
