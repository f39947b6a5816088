"""Changes of colour, as Pillow's ImageEnhance makes them: a blend of the picture with a duller one, x₀ + f (x − x₀).

Pictures are [B, C, H, W] float32 in [0, 1], grey or RGB; a factor f is [B], 1 leaves a picture as it is.
"""

from __future__ import annotations

import torch
from torch import Tensor

# ITU-R 601-2, as Pillow turns colours into grey.
LUMA = (0.299, 0.587, 0.114)


def grey(images: Tensor) -> Tensor:
    """Return [B, 1, H, W]: the brightness to the eye."""
    if images.shape[1] == 1:
        return images
    red, green, blue = images[:, :3].unbind(1)
    return (LUMA[0] * red + LUMA[1] * green + LUMA[2] * blue)[:, None]


def blend(dull: Tensor, images: Tensor, factor: Tensor) -> Tensor:
    return (dull + factor.to(images)[:, None, None, None] * (images - dull)).clamp_(0, 1)


def brightness(images: Tensor, factor: Tensor) -> Tensor:
    """Blended with black."""
    return blend(torch.zeros_like(images), images, factor)


def contrast(images: Tensor, factor: Tensor) -> Tensor:
    """Blended with its mean grey."""
    # Whole numbers: their sum is the same in whatever order it is taken.
    levels = (grey(images) * 255).round().long()
    mean = levels.sum((1, 2, 3), keepdim=True).float() / (255 * levels[0].numel())
    return blend(mean, images, factor)


def saturation(images: Tensor, factor: Tensor) -> Tensor:
    """Blended with its grey picture; a grey picture stays."""
    return blend(grey(images), images, factor) if images.shape[1] > 1 else images


def sharpness(images: Tensor, factor: Tensor) -> Tensor:
    """Blended with a smoothed copy: the mean of 3 × 3 pixels with 5 times the weight on the middle, the rim as it is."""
    if min(images.shape[2:]) < 3:
        return images
    height, width = images.shape[2] - 2, images.shape[3] - 2
    middle = 4 * images[:, :, 1:-1, 1:-1]
    for down in range(3):
        for right in range(3):
            middle = middle + images[:, :, down : down + height, right : right + width]
    smooth = images.clone()
    smooth[:, :, 1:-1, 1:-1] = middle / 13
    return blend(smooth, images, factor)
