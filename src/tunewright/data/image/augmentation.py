"""Changed copies of the training pictures: flipped, cropped, recoloured, mixed.

What happens to an example is a function of (seed, epoch, example) alone: not of its batch, nor of what was drawn before.
So a resumed training sees the same pictures. Only arithmetic whose result does not depend on a picture's neighbours in
the batch is used: no convolution, no matrix product, sums of whole numbers only.

Pictures are [B, C, H, W] float32 in [0, 1], grey or RGB. RandAugment's single changes are in `data/image/randaugment.py`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Annotated, Any

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from tunewright.data.augmentation_step import parse_step
from tunewright.data.image import color_ops as recolour
from tunewright.data.image.affine import identity, sample
from tunewright.data.image.boxes import Boxes
from tunewright.data.image.randaugment import CHANGES, GEOMETRY, LARGEST
from tunewright.random import uniform
from tunewright.recipe.named import check_options, choose

Share = Annotated[float, Field(ge=0, le=1)]
Strength = Annotated[float, Field(ge=0, le=1)]
Shape = Annotated[float, Field(gt=0, le=100)]


@dataclass(frozen=True, kw_only=True)
class Draw:
    """Random numbers for the examples of a batch, by what they are for."""

    seed: int
    epoch: int
    ids: Tensor
    """[B] int64, on the CPU."""
    device: torch.device

    def uniform(self, purpose: str, count: int) -> Tensor:
        """Return [B, count] float32 in [0, 1), on the device."""
        return torch.from_numpy(uniform(self.seed, f"augment {purpose}", self.epoch, self.ids.numpy(), count)).to(
            self.device
        )

    def numbers(self, purpose: str, count: int) -> np.ndarray:
        """Return the same numbers, [B, count] float64 on the CPU."""
        return uniform(self.seed, f"augment {purpose}", self.epoch, self.ids.numpy(), count).astype(np.float64)


def _unmoved(draw: Draw, purpose: str, size: tuple[int, int]) -> Iterator[np.ndarray]:
    return iter(())


@dataclass(frozen=True)
class Change:
    """A step that changes pictures one by one."""

    images: Callable[[Tensor, Draw, str], Tensor]
    """(pictures, draw, what its random numbers are for) → changed pictures of the same shape."""
    maps: Callable[[Draw, str, tuple[int, int]], Iterator[np.ndarray]] = _unmoved
    """(draw, the same purpose, (height, width)) → the maps [B, 2, 3] from places of the changed pictures to those of the pictures,
    one after the other, as `affine.sample` takes them; none where all stays in its place."""


# (pictures, their partners, draw, purpose) → mixed pictures, and the share [B] that is left of the first.
Mix = Callable[[Tensor, Tensor, Draw, str], tuple[Tensor, Tensor]]


def flip(*, chance: Share = 0.5, vertical: bool = False) -> Change:
    """Mirror left and right (or top and bottom) with this chance (Krizhevsky et al. 2012, section 4.1)."""

    def change(images: Tensor, draw: Draw, purpose: str) -> Tensor:
        chosen = draw.uniform(purpose, 1)[:, 0] < chance
        return torch.where(chosen[:, None, None, None], images.flip(2 if vertical else 3), images)

    def maps(draw: Draw, purpose: str, size: tuple[int, int]) -> Iterator[np.ndarray]:
        chosen = (draw.uniform(purpose, 1)[:, 0] < chance).cpu().numpy()
        axis = 1 if vertical else 0
        found = identity(len(chosen))
        found[chosen, axis, axis] = -1
        yield found

    return Change(change, maps)


def crop(*, padding: Annotated[int, Field(gt=0, le=1000)] = 4) -> Change:
    """Add so many black pixels on each side and cut out a picture of the old size anywhere (He et al. 2015, section 4.2)."""

    def change(images: Tensor, draw: Draw, purpose: str) -> Tensor:
        batch, _, height, width = images.shape
        offsets = torch.from_numpy(np.floor(draw.numbers(purpose, 2) * (2 * padding + 1))).long().to(images.device)
        padded = torch.nn.functional.pad(images, (padding,) * 4)
        rows = offsets[:, :1] + torch.arange(height, device=images.device)
        columns = offsets[:, 1:] + torch.arange(width, device=images.device)
        which = torch.arange(batch, device=images.device)[:, None, None]
        return padded.permute(0, 2, 3, 1)[which, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2).contiguous()

    def maps(draw: Draw, purpose: str, size: tuple[int, int]) -> Iterator[np.ndarray]:
        down, right = (np.floor(draw.numbers(purpose, 2) * (2 * padding + 1)) - padding).T
        found = identity(len(down))
        found[:, 0, 2], found[:, 1, 2] = 2 * right / size[1], 2 * down / size[0]
        yield found

    return Change(change, maps)


def resized_crop(
    *, scale: Annotated[float, Field(gt=0, le=1)] = 0.35, ratio: Annotated[float, Field(ge=1)] = 4 / 3
) -> Change:
    """Cut out a part and enlarge it to the old size (Szegedy et al. 2014, "Going deeper with convolutions", section 6).

    Args:
        scale: the smallest share of the area; the share is uniform from it to 1. The paper has 0.08, for ImageNet.
        ratio: the part is at most so many times as wide as high, or as high as wide; its logarithm is uniform.
    """

    def maps(draw: Draw, purpose: str, size: tuple[int, int]) -> Iterator[np.ndarray]:
        numbers = draw.numbers(purpose, 4)
        area = scale + (1 - scale) * numbers[:, 0]
        form = np.exp((2 * numbers[:, 1] - 1) * math.log(ratio))
        width = np.minimum(1, np.sqrt(area * form))
        height = np.minimum(1, np.sqrt(area / form))
        # In coordinates from −1 to 1 a part of width w can have its centre from w − 1 to 1 − w.
        x = (2 * numbers[:, 2] - 1) * (1 - width)
        y = (2 * numbers[:, 3] - 1) * (1 - height)
        zero = np.zeros_like(x)
        yield np.stack([width, zero, x, zero, height, y], axis=1).reshape(-1, 2, 3)

    def change(images: Tensor, draw: Draw, purpose: str) -> Tensor:
        return sample(images, next(maps(draw, purpose, (images.shape[2], images.shape[3]))), border=True)

    return Change(change, maps)


def color(*, brightness: Strength = 0.4, contrast: Strength = 0.4, saturation: Strength = 0.4) -> Change:
    """Brightness, contrast and saturation times a factor each, uniform in 1 ± the strength (Howard 2013, section 2.2)."""

    def change(images: Tensor, draw: Draw, purpose: str) -> Tensor:
        numbers = 2 * draw.uniform(purpose, 3) - 1
        images = recolour.brightness(images, 1 + brightness * numbers[:, 0])
        images = recolour.contrast(images, 1 + contrast * numbers[:, 1])
        return recolour.saturation(images, 1 + saturation * numbers[:, 2])

    return Change(change)


def randaugment(
    *, n: Annotated[int, Field(gt=0, le=10)] = 2, m: Annotated[float, Field(ge=0, le=LARGEST)] = 9
) -> Change:
    """`n` changes drawn from fourteen, one after the other, each with magnitude `m` of 10 (Cubuk et al. 2020, figure 2)."""

    def rounds(draw: Draw, purpose: str) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Of each round which change every example gets, and with which sign."""
        numbers = draw.numbers(purpose, 2 * n)
        for round in range(n):
            kinds = (numbers[:, 2 * round] * len(CHANGES)).astype(np.int64)
            yield kinds, np.where(numbers[:, 2 * round + 1] < 0.5, -1.0, 1.0)

    def change(images: Tensor, draw: Draw, purpose: str) -> Tensor:
        for kinds, signs in rounds(draw, purpose):
            images = images.clone()
            for kind, function in enumerate(CHANGES.values()):
                chosen = np.flatnonzero(kinds == kind)
                if len(chosen):
                    where = torch.from_numpy(chosen).to(images.device)
                    images[where] = function(images[where], m / LARGEST, signs[chosen])
        return images

    def maps(draw: Draw, purpose: str, size: tuple[int, int]) -> Iterator[np.ndarray]:
        for kinds, signs in rounds(draw, purpose):
            found = identity(len(kinds))
            for kind, name in enumerate(CHANGES):
                if name in GEOMETRY:
                    chosen = np.flatnonzero(kinds == kind)
                    found[chosen] = GEOMETRY[name](size, m / LARGEST, signs[chosen])
            yield found

    return Change(change, maps)


def mixup(*, alpha: Shape = 0.2) -> Mix:
    """λ x + (1 − λ) x′ and λ y + (1 − λ) y′ with λ from Beta(α, α), for each example (Zhang et al. 2018, section 2)."""

    def mix(images: Tensor, partners: Tensor, draw: Draw, purpose: str) -> tuple[Tensor, Tensor]:
        share = torch.from_numpy(_beta(alpha, draw.numbers(purpose, 1)[:, 0])).to(images)
        weight = share[:, None, None, None]
        return weight * images + (1 - weight) * partners, share

    return mix


def cutmix(*, alpha: Shape = 1.0) -> Mix:
    """Return a box of the other picture in this one; the labels are mixed by area (Yun et al. 2019, section 3.1).

    The box has the share 1 − λ of the area, λ from Beta(α, α), its centre anywhere; what hangs over is cut off.
    """

    def mix(images: Tensor, partners: Tensor, draw: Draw, purpose: str) -> tuple[Tensor, Tensor]:
        numbers = draw.numbers(purpose, 3)
        side = np.sqrt(1 - _beta(alpha, numbers[:, 0]))
        inside: list[Tensor] = []
        for axis, size in ((1, images.shape[2]), (2, images.shape[3])):
            centre = np.floor(numbers[:, axis] * size)
            half = np.floor(side * size) / 2
            low, high = np.floor(centre - half), np.floor(centre + half)
            places = np.arange(size)
            inside.append(torch.from_numpy((places >= low[:, None]) & (places < high[:, None])).to(images.device))
        box = inside[0][:, :, None] & inside[1][:, None, :]
        share = 1 - box.sum((1, 2)).to(images) / box[0].numel()
        return torch.where(box[:, None], partners, images), share

    return mix


CHANGE_NAMES = ("flip", "crop", "resized_crop", "color", "randaugment")
AUGMENTATIONS: dict[str, Callable[..., Any]] = {
    "flip": flip,
    "crop": crop,
    "resized_crop": resized_crop,
    "color": color,
    "randaugment": randaugment,
    "mixup": mixup,
    "cutmix": cutmix,
}


@dataclass(frozen=True, kw_only=True)
class Augmentation:
    """What a recipe's list asks for."""

    changes: tuple[tuple[str, Change], ...]
    """In the order of the list, each with the purpose of its random numbers."""
    mixes: tuple[tuple[str, Mix], ...]
    """Of several, each example gets one, drawn evenly."""
    seed: int
    classes: int
    """For the mixed targets."""

    def draw(self, ids: Tensor, epoch: int, device: torch.device) -> Draw:
        return Draw(seed=self.seed, epoch=epoch, ids=ids, device=device)

    def change(self, images: Tensor, draw: Draw) -> Tensor:
        """Return the pictures after all changes but the mixing."""
        for purpose, function in self.changes:
            images = function.images(images, draw, purpose)
        return images

    def move(self, boxes: Boxes, draw: Draw, size: tuple[int, int]) -> Boxes:
        """Return the boxes of the pictures that `change` gives with the same draw; see `boxes.py` for those that are dropped.

        Args:
            size: (height, width) of the pictures.
        """
        for purpose, function in self.changes:
            for maps in function.maps(draw, purpose, size):
                boxes = boxes.moved(maps, size)
        return boxes

    def partners(self, draw: Draw, count: int) -> Tensor:
        """Return [B] int64 on the CPU: for each example, another of the `count` examples (or by chance itself)."""
        return torch.from_numpy((draw.numbers("partner", 1)[:, 0] * count).astype(np.int64))

    def mix(self, images: Tensor, others: Tensor, draw: Draw) -> tuple[Tensor, Tensor]:
        """Return the mixed pictures, and the share [B] of the first in each."""
        mixed = [function(images, others, draw, purpose) for purpose, function in self.mixes]
        if len(mixed) == 1:
            return mixed[0]
        kind = torch.from_numpy((draw.numbers("which mix", 1)[:, 0] * len(mixed)).astype(np.int64)).to(images.device)
        rows = torch.arange(len(kind), device=images.device)
        return torch.stack([one for one, _ in mixed])[kind, rows], torch.stack([share for _, share in mixed])[
            kind, rows
        ]

    def soften(self, target: Tensor, other: Tensor, share: Tensor) -> Tensor:
        """Class indices [B] of both as shares of the classes [B, K] float32, which sum to 1."""
        first, second = (torch.nn.functional.one_hot(value, self.classes).float() for value in (target, other))
        return share[:, None] * first + (1 - share[:, None]) * second


def build_augmentation(steps: Sequence[str | dict[str, Any]], *, seed: int, classes: int) -> Augmentation | None:
    """Return what the list of a recipe asks for; None when it is empty.

    Each step is a name, {name: options}, or {name: value} where the value is that of its first option.

    Raises:
        RecipeError: an unknown name or option, or a wrong value.
    """
    changes: list[tuple[str, Change]] = []
    mixes: list[tuple[str, Mix]] = []
    for number, step in enumerate(steps):
        name, options = parse_step(step, f"train.augment.{number}", AUGMENTATIONS)
        function = choose(AUGMENTATIONS, name, "train.augment")
        made = function(**check_options(function, options, f"train.augment.{number}.{name}"))
        (changes if name in CHANGE_NAMES else mixes).append((f"{number} {name}", made))
    if not changes and not mixes:
        return None
    return Augmentation(changes=tuple(changes), mixes=tuple(mixes), seed=seed, classes=classes)


def _beta(alpha: float, numbers: np.ndarray) -> np.ndarray:
    """Numbers from Beta(α, α), by the inverse of its distribution function: one uniform number for each."""
    from scipy.special import betaincinv

    return betaincinv(alpha, alpha, numbers)
