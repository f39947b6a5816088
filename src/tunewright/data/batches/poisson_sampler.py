"""Batches for training with differential privacy: at each step every unit is in by a coin of its own (Poisson sampling).

The privacy that a step costs is counted for exactly this draw (Abadi et al. 2016, section 3.1; Mironov, Talwar and Zhang
2019). Shuffled batches of a fixed size would cost another amount, which nobody can state as well.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from tunewright.data.batches.batch import Batch, Examples

# What a generator's numbers are for; each purpose and step has 2¹²⁸ numbers of its own.
MEMBERS, NOISE = 1, 2


def secret_generator(key: int, purpose: int, step: int) -> np.random.Generator:
    """Random numbers of a step, a function of the secret key [128 bits], what they are for, and the step alone.

    From Philox, a counter-based generator (Salmon et al. 2011). It is no cryptographic one.
    """
    return np.random.Generator(np.random.Philox(key=key, counter=[0, 0, purpose, step]))


@dataclass(frozen=True, kw_only=True)
class PoissonBatches:
    """Steps whose units are drawn at random: an example, or one example of a user.

    A unit comes about once in `steps_per_epoch` steps, which is what an epoch means here.
    """

    examples: Examples
    expected: int
    """Units in a step on average."""
    most: int
    """Examples that are computed at a time."""
    key: int
    users: list[Tensor] | None = None
    """For each user the positions of their examples; a user who is drawn gives one of them, so that a whole user weighs no
    more than one example. None: each example is a unit."""

    @property
    def units(self) -> int:
        return len(self.examples) if self.users is None else len(self.users)

    @property
    def rate(self) -> float:
        """The probability of each unit to be in a step."""
        return min(1.0, self.expected / self.units)

    @property
    def steps_per_epoch(self) -> int:
        return max(1, round(1 / self.rate))

    def steps(self, epoch: int, *, start: int = 0) -> Iterator[list[Batch]]:
        """Yield the micro-batches of each step of an epoch, from step `start` of it on; a step may be empty."""
        for step in range(start, self.steps_per_epoch):
            ids = self.drawn(epoch * self.steps_per_epoch + step)
            if self.examples.lengths is not None:
                ids = ids[torch.argsort(self.examples.lengths[ids], stable=True)]
            yield [self.examples.batch(part, epoch) for part in ids.split(self.most) if len(part)]

    def drawn(self, step: int) -> Tensor:
        """Return the positions of a step's examples, [≈ expected] int64.

        So many units as a binomial number says, each set of so many as likely as any other: this is a coin for each unit.
        """
        generator = secret_generator(self.key, MEMBERS, step)
        count = generator.binomial(self.units, self.rate)
        chosen = np.sort(generator.choice(self.units, count, replace=False, shuffle=False))
        if self.users is None:
            return torch.from_numpy(chosen)
        turns = generator.random(count)
        own = [self.users[user] for user in chosen]
        return torch.tensor([int(each[int(turn * len(each))]) for each, turn in zip(own, turns)], dtype=torch.int64)
