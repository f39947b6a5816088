"""Corrupt inputs for self-supervised pretraining, where the network reconstructs the original.

The corruption of an example depends on (seed, epoch, example) alone, not on its batch.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from tunewright.errors import RecipeError
from tunewright.random import normal, uniform

DEFAULT_PATCH = 4

Ids = Int[Tensor, " batch"]
"""The examples' numbers."""


def mask(
    inputs: Float[Tensor, " batch *dims"], ids: Ids, epoch: int, seed: int, *, ratio: float, patch: int | None
) -> tuple[Float[Tensor, " batch *dims"], Bool[Tensor, " batch *dims"]]:
    """Hide the same fraction of each example: random square patches of an image, random entries of other inputs.

    He et al. 2021, "Masked autoencoders are scalable vision learners", section 3: patches are drawn without
    replacement, so each example has exactly round(ratio · P) of its P patches hidden, but at least one and not all.
    A patch is hidden in all channels.

    Args:
        inputs: images [batch, channels, height, width], or other inputs.
        ratio: the fraction that is hidden.
        patch: the side of a patch in pixels; None: the largest up to 4 that divides height and width.

    Returns:
        The inputs with 0 where they are hidden, and a mask that is true there.

    Raises:
        RecipeError: the patch does not divide the image, or there is only one patch or entry.
    """
    batch = inputs.shape[0]
    side = _patch_side(inputs.shape[1:], patch)
    grid = (1, inputs.shape[2] // side, inputs.shape[3] // side) if inputs.dim() == 4 else tuple(inputs.shape[1:])
    patches = torch.Size(grid).numel()
    if patches < 2:
        raise RecipeError(
            "there is only one patch or column: hiding it leaves nothing to learn from",
            place="train.objective.masked",
            found=f"inputs of shape {list(inputs.shape[1:])}",
            expected="at least two",
            fix="choose a smaller patch, or train.objective: denoising",
        )
    count = min(max(1, round(ratio * patches)), patches - 1)
    scores = torch.from_numpy(uniform(seed, "masked", epoch, ids.cpu().numpy(), patches))
    chosen = scores.topk(count, dim=1, largest=False, sorted=False).indices
    hidden = torch.zeros(batch, patches, dtype=torch.bool).scatter_(1, chosen, True).reshape(batch, *grid)
    if side > 1:
        hidden = hidden.repeat_interleave(side, dim=2).repeat_interleave(side, dim=3)
    hidden = hidden.to(inputs.device).expand_as(inputs)
    return inputs.masked_fill(hidden, 0), hidden


def add_noise(
    inputs: Float[Tensor, " batch *dims"], ids: Ids, epoch: int, seed: int, *, std: float
) -> Float[Tensor, " batch *dims"]:
    """Add independent Gaussian noise of standard deviation `std` to each entry.

    Vincent et al. 2010, "Stacked denoising autoencoders", section 3.3, after Vincent et al. 2008.
    """
    noise = normal(seed, "denoising", epoch, ids.cpu().numpy(), inputs.shape[1:].numel())
    return torch.from_numpy(noise).to(inputs).reshape(inputs.shape).mul_(std).add_(inputs)


@dataclass(frozen=True, kw_only=True)
class Vocabulary:
    """Hold the token ids that masking needs."""

    mask: int
    """The id of [MASK]."""
    ordinary: Int[Tensor, " _"]
    """The ids of all tokens but the special ones."""
    special: Int[Tensor, " _"]
    """The ids of the special tokens."""

    def to(self, device: torch.device) -> Vocabulary:
        return replace(self, ordinary=self.ordinary.to(device), special=self.special.to(device))


def hidden_counts(ordinary: Bool[Tensor, "batch time"], ratio: float) -> Int[Tensor, " batch"]:
    """Return how many tokens of each text are hidden: round(ratio · n) of its n ordinary tokens, but at least one.

    Args:
        ordinary: true at ordinary tokens.
    """
    count = ordinary.sum(1)
    return (count * ratio + 0.5).floor().long().clamp(min=1).minimum(count)


def mask_tokens(
    tokens: Int[Tensor, "batch time"],
    ordinary: Bool[Tensor, "batch time"],
    ids: Ids,
    epoch: int,
    seed: int,
    *,
    ratio: float,
    vocabulary: Vocabulary,
) -> tuple[Int[Tensor, "batch time"], Bool[Tensor, "batch time"]]:
    """Hide a fraction of each text's ordinary tokens: 80 % become [MASK], 10 % a random token, 10 % stay (Devlin et al.
    2019, section 3.1 and appendix A.1). The number of chosen tokens is exact; their positions and replacements are random.

    Args:
        ordinary: true at ordinary tokens, false at special tokens and padding.
        ids: a text's random numbers do not depend on the length of its padding.

    Returns:
        The tokens with some of them replaced, and which were chosen.
    """
    numbers, width = ids.cpu().numpy(), tokens.shape[1]
    order, fate, other = (
        torch.from_numpy(uniform(seed, f"masked_tokens:{what}", epoch, numbers, width)).to(tokens.device)
        for what in ("order", "fate", "other")
    )
    rank = order.masked_fill(~ordinary, 2.0).argsort(dim=1, stable=True).argsort(dim=1)
    chosen = rank < hidden_counts(ordinary, ratio)[:, None]
    # In double precision: a float32 product could round up to the number of ordinary tokens.
    random = vocabulary.ordinary[(other.double() * len(vocabulary.ordinary)).long()]
    replaced = torch.where(fate < 0.8, vocabulary.mask, torch.where(fate < 0.9, random, tokens))
    return torch.where(chosen, replaced, tokens), chosen


def _patch_side(shape: torch.Size, patch: int | None) -> int:
    """Return the side of a patch of an example of this shape; 1 for all but images."""
    if len(shape) != 3:
        if patch is None:
            return 1
        raise RecipeError(
            "a patch is a square of an image, and these inputs are not images",
            place="train.objective.masked.patch",
            found=patch,
            fix="remove the patch: single entries are hidden",
        )
    _, height, width = shape
    fitting = [side for side in range(1, min(height, width) + 1) if height % side == 0 and width % side == 0]
    if patch is None:
        return max(side for side in fitting if side <= DEFAULT_PATCH)
    if patch not in fitting:
        raise RecipeError(
            "the patch does not divide the image into whole patches",
            place="train.objective.masked.patch",
            found=f"{patch} for {height} × {width} pixels",
            expected=f"one of {', '.join(map(str, fitting))}",
            fix="choose one of these, or set data.resize",
        )
    return patch
