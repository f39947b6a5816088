"""The fourteen changes that RandAugment draws from (Cubuk et al. 2020, "RandAugment", figure 2).

Each takes pictures [B, C, H, W] float32 in [0, 1], the share of the largest magnitude (0 to 1), and a sign [B] for those
that go two ways; those that move what is in the picture give the map that it is sampled through. The ranges are those of AutoAugment (Cubuk et al. 2019, table 6).
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from tunewright.data.image import color_ops as recolour
from tunewright.data.image.affine import sample

# The magnitude that gives the ends of AutoAugment's ranges.
LARGEST = 10
SHEAR = 0.3
# 150 of 331 pixels.
SHIFT = 150 / 331
DEGREES = 30
ENHANCE = 0.9
POSTERIZE_BITS = 4

Function = Callable[[Tensor, float, np.ndarray], Tensor]
# ((height, width), share, sign [B]) → maps [B, 2, 3] for `affine.sample`.
Geometry = Callable[[tuple[int, int], float, np.ndarray], np.ndarray]


def identity(images: Tensor, share: float, sign: np.ndarray) -> Tensor:
    """Return the picture as it is."""
    return images


def autocontrast(images: Tensor, share: float, sign: np.ndarray) -> Tensor:
    """Return each channel stretched so that its darkest pixel is 0 and its brightest 1."""
    low, high = images.amin((2, 3), keepdim=True), images.amax((2, 3), keepdim=True)
    return torch.where(high > low, (images - low) / (high - low).clamp(min=1e-6), images)


def equalize(images: Tensor, share: float, sign: np.ndarray) -> Tensor:
    """Return each channel's grey levels spread so that all are about equally frequent, by Pillow's ImageOps.equalize."""
    levels = (images * 255).round().long().flatten(2)
    counts = torch.zeros(*levels.shape[:2], 256, dtype=torch.int64, device=images.device)
    counts.scatter_add_(2, levels, torch.ones_like(levels))
    # The count of the brightest level that occurs does not matter to the step.
    brightest = levels.amax(2, keepdim=True)
    step = (levels.shape[2] - counts.gather(2, brightest)) // 255
    table = (step // 2 + counts.cumsum(2) - counts) // step.clamp(min=1)
    spread = table.clamp(max=255).gather(2, levels).float() / 255
    return torch.where(step > 0, spread, images.flatten(2)).reshape(images.shape)


def rotate(size: tuple[int, int], share: float, sign: np.ndarray) -> np.ndarray:
    """Turned by up to 30 degrees."""
    angle = np.deg2rad(DEGREES * share * sign)
    aspect = size[1] / size[0]
    cosine, sine, zero = np.cos(angle), np.sin(angle), np.zeros_like(sign)
    return _maps(cosine, sine / aspect, zero, -sine * aspect, cosine, zero)


def shear_x(size: tuple[int, int], share: float, sign: np.ndarray) -> np.ndarray:
    """Return rows shifted sideways by up to 0.3 of their distance from the middle."""
    one, zero, aspect = np.ones_like(sign), np.zeros_like(sign), size[1] / size[0]
    return _maps(one, SHEAR * share * sign / aspect, zero, zero, one, zero)


def shear_y(size: tuple[int, int], share: float, sign: np.ndarray) -> np.ndarray:
    """Return columns shifted up or down by up to 0.3 of their distance from the middle."""
    one, zero, aspect = np.ones_like(sign), np.zeros_like(sign), size[1] / size[0]
    return _maps(one, zero, zero, SHEAR * share * sign * aspect, one, zero)


def translate_x(size: tuple[int, int], share: float, sign: np.ndarray) -> np.ndarray:
    """Shifted sideways by up to 0.45 of the width."""
    one, zero = np.ones_like(sign), np.zeros_like(sign)
    return _maps(one, zero, 2 * SHIFT * share * sign, zero, one, zero)


def translate_y(size: tuple[int, int], share: float, sign: np.ndarray) -> np.ndarray:
    """Shifted up or down by up to 0.45 of the height."""
    one, zero = np.ones_like(sign), np.zeros_like(sign)
    return _maps(one, zero, zero, zero, one, 2 * SHIFT * share * sign)


def solarize(images: Tensor, share: float, sign: np.ndarray) -> Tensor:
    """Pixels above a threshold inverted; the larger the magnitude, the lower the threshold."""
    return torch.where(images >= 1 - share, 1 - images, images) if share > 0 else images


def posterize(images: Tensor, share: float, sign: np.ndarray) -> Tensor:
    """Only the upper bits of each pixel: 8 down to 4."""
    mask = 256 - 2 ** round(POSTERIZE_BITS * share)
    return ((images * 255).round().long() & mask).float() / 255


def brightness(images: Tensor, share: float, sign: np.ndarray) -> Tensor:
    return recolour.brightness(images, _factor(images, share, sign))


def contrast(images: Tensor, share: float, sign: np.ndarray) -> Tensor:
    return recolour.contrast(images, _factor(images, share, sign))


def color(images: Tensor, share: float, sign: np.ndarray) -> Tensor:
    return recolour.saturation(images, _factor(images, share, sign))


def sharpness(images: Tensor, share: float, sign: np.ndarray) -> Tensor:
    return recolour.sharpness(images, _factor(images, share, sign))


# The changes that move what is in the picture.
GEOMETRY: dict[str, Geometry] = {
    "rotate": rotate,
    "shear_x": shear_x,
    "shear_y": shear_y,
    "translate_x": translate_x,
    "translate_y": translate_y,
}


def _sampled(geometry: Geometry) -> Function:
    def change(images: Tensor, share: float, sign: np.ndarray) -> Tensor:
        return sample(images, geometry((images.shape[2], images.shape[3]), share, sign))

    return change


CHANGES: dict[str, Function] = {
    "identity": identity,
    "autocontrast": autocontrast,
    "equalize": equalize,
    "rotate": _sampled(rotate),
    "solarize": solarize,
    "color": color,
    "posterize": posterize,
    "contrast": contrast,
    "brightness": brightness,
    "sharpness": sharpness,
    "shear_x": _sampled(shear_x),
    "shear_y": _sampled(shear_y),
    "translate_x": _sampled(translate_x),
    "translate_y": _sampled(translate_y),
}


def _factor(images: Tensor, share: float, sign: np.ndarray) -> Tensor:
    """From 0.1 to 1.9; 1 at no magnitude."""
    return torch.from_numpy((1 + ENHANCE * share * sign).astype(np.float32)).to(images.device)


def _maps(*entries: np.ndarray) -> np.ndarray:
    return np.stack(entries, axis=1).reshape(-1, 2, 3)
