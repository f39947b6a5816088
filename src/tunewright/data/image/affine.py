"""Pictures seen through an affine map: what rotation, shearing, shifting and zooming have in common."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import grid_sample


def identity(count: int) -> np.ndarray:
    """Return [count, 2, 3] maps that move nothing."""
    return np.tile(np.eye(2, 3), (count, 1, 1))


def sample(images: Tensor, maps: np.ndarray, *, border: bool = False) -> Tensor:
    """Sample each image at the places that the map gives for (x, y), bilinearly.

    Args:
        images: [B, C, H, W].
        maps: [B, 2, 3]; coordinates run from −1 to 1 between the outer edges of the outer pixels.
        border: repeat the outermost pixels beyond the picture; otherwise it is black there.
    """
    _, _, height, width = images.shape
    x, y = (
        ((2 * torch.arange(size, device=images.device, dtype=torch.float32) + 1) / size - 1) for size in (width, height)
    )
    m = torch.from_numpy(maps.astype(np.float32)).to(images.device)[:, :, :, None, None]
    # Written out: a matrix product may round differently in another batch.
    grid = [m[:, axis, 0] * x[None, None, :] + m[:, axis, 1] * y[None, :, None] + m[:, axis, 2] for axis in (0, 1)]
    shaped = torch.stack([part.expand(-1, height, width) for part in grid], dim=3)
    padding = "border" if border else "zeros"
    return grid_sample(images, shaped, mode="bilinear", padding_mode=padding, align_corners=False)
