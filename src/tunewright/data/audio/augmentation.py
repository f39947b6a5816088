"""Changed copies of training recordings: other noise, speed and loudness, hidden stripes.

What happens to a recording is a function of (seed, epoch, recording) alone, not of its batch, so that a resumed training hears
the same. Samples are [N] float32 in [−1, 1], features [T, M].
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Annotated, Any

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from tunewright.data.augmentation_step import parse_step
from tunewright.random import mix
from tunewright.recipe.named import check_options, choose

Decibels = Annotated[float, Field(ge=-60, le=100)]
# (samples or features, random numbers) → changed ones.
Change = Callable[[Tensor, np.random.Generator], Tensor]


@dataclass(frozen=True)
class SoundChanges:
    """What `train.augment` asks for, in its order."""

    of_samples: tuple[tuple[str, Change], ...]
    of_features: tuple[tuple[str, Change], ...]
    seed: int

    def samples(self, samples: Tensor, index: int, epoch: int) -> Tensor:
        """Return a changed copy of a recording; another one each epoch."""
        return self._changed(self.of_samples, samples, index, epoch)

    def features(self, features: Tensor, index: int, epoch: int) -> Tensor:
        """Return the same of what the network reads."""
        return self._changed(self.of_features, features, index, epoch)

    def _changed(self, changes: Sequence[tuple[str, Change]], value: Tensor, index: int, epoch: int) -> Tensor:
        for name, change in changes:
            value = change(value, np.random.default_rng(mix(self.seed, "augment", name, epoch, index)))
        return value


def noise(*, least: Decibels = 10, most: Decibels = 40) -> Change:
    """White noise, so many decibels below the recording."""

    def change(samples: Tensor, draw: np.random.Generator) -> Tensor:
        below = draw.uniform(min(least, most), max(least, most))
        power = samples.square().mean().sqrt() * 10 ** (-below / 20)
        return samples + power * torch.from_numpy(draw.standard_normal(len(samples), np.float32))

    return change


def speed(*, by: Annotated[float, Field(gt=0, le=0.5)] = 0.1) -> Change:
    """Slower, as it is, or faster by this share, the pitch with it (Ko et al. 2015)."""

    def change(samples: Tensor, draw: np.random.Generator) -> Tensor:
        from scipy.signal import resample_poly

        faster = 100 + round(100 * by) * int(draw.integers(-1, 2))
        if faster == 100:
            return samples
        return torch.from_numpy(resample_poly(samples.numpy(), 100, faster).astype(np.float32))

    return change


def gain(*, by: Annotated[float, Field(gt=0, le=40)] = 6) -> Change:
    """Louder or softer by up to so many decibels; what is too loud for the format is cut, as a recorder does."""

    def change(samples: Tensor, draw: np.random.Generator) -> Tensor:
        return (samples * 10 ** (draw.uniform(-by, by) / 20)).clamp(-1, 1)

    return change


def stripes(
    *,
    bands: Annotated[int, Field(ge=0, le=1000)] = 2,
    width: Annotated[float, Field(gt=0, lt=1)] = 0.15,
    times: Annotated[int, Field(ge=0, le=1000)] = 2,
    length: Annotated[float, Field(gt=0, lt=1)] = 0.06,
) -> Change:
    """Hide so many stripes of bands and of time, each at most such a share of them (SpecAugment, Park et al. 2019); samples
    have stripes of time alone. What is hidden is 0, which is the mean."""

    def change(features: Tensor, draw: np.random.Generator) -> Tensor:
        found = features.clone()
        hidden = [*[(0, length)] * times, *[(1, width)] * (bands if features.dim() == 2 else 0)]
        for axis, share in hidden:
            size = found.shape[axis]
            most = int(draw.integers(0, int(share * size) + 1))
            found.narrow(axis, int(draw.integers(0, size - most + 1)), most).zero_()
        return found

    return change


OF_SAMPLES: dict[str, Callable[..., Change]] = {"noise": noise, "speed": speed, "gain": gain}
OF_FEATURES: dict[str, Callable[..., Change]] = {"stripes": stripes}


def build_sound_changes(steps: Sequence[str | dict[str, Any]], *, seed: int) -> SoundChanges | None:
    """Return what the list of a recipe asks for; None when it is empty.

    Raises:
        RecipeError: an unknown name or option, or a wrong value.
    """
    known = {**OF_SAMPLES, **OF_FEATURES}
    made: list[tuple[str, str, Change]] = []
    for number, step in enumerate(steps):
        name, options = parse_step(step, f"train.augment.{number}", known)
        function = choose(known, name, "train.augment")
        checked = check_options(function, options, f"train.augment.{number}.{name}")
        made.append((name, f"{number} {name}", function(**checked)))
    return (
        SoundChanges(
            tuple((place, change) for name, place, change in made if name in OF_SAMPLES),
            tuple((place, change) for name, place, change in made if name in OF_FEATURES),
            seed,
        )
        if made
        else None
    )
