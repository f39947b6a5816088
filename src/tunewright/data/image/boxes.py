"""Boxes that follow their images through geometric changes.

A box is (x0, y0, x1, y1) in pixels between its outer edges: (0, 0, W, H) is the whole image. A change that is no translation or scaling
gives the smallest upright box around the moved corners. What lies outside of the image is cut off.

A box is dropped when less than a tenth of it is still inside the image, over all changes since `Boxes.of`, or when a side is
shorter than one pixel. After a rotation or shear the tenth is one of the upright box, which holds more than the object.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import numpy as np

LEAST_VISIBLE = 0.1
SHORTEST_SIDE = 1.0


@dataclass(frozen=True, kw_only=True)
class Boxes:
    """The boxes of a batch of images, or of one."""

    corners: np.ndarray
    """[N, 4] float64."""
    image: np.ndarray
    """[N] int64: the place of each box's image in the batch."""
    index: np.ndarray
    """[N] int64: the place of each box among those that `of` got, so that labels can follow."""
    visible: np.ndarray
    """[N] float64: the share of the box that no change has cut off."""

    @classmethod
    def of(cls, corners: np.ndarray, image: np.ndarray | None = None) -> Self:
        """Return the boxes [N, 4] as they are before any change.

        Args:
            image: [N]; None: all are of one image.
        """
        count = len(corners)
        return cls(
            corners=np.asarray(corners, np.float64).reshape(count, 4),
            image=np.zeros(count, np.int64) if image is None else np.asarray(image, np.int64),
            index=np.arange(count),
            visible=np.ones(count),
        )

    def moved(self, maps: np.ndarray, size: tuple[int, int]) -> Self:
        """Return the boxes after images were sampled through `maps`.

        Args:
            maps: [B, 2, 3] as `affine.sample` takes them: from a place of the new image to that of the old one, in coordinates from
                −1 to 1.
            size: (height, width) of the images, which does not change.
        """
        scale = np.array([size[1], size[0]]) / 2
        x0, y0, x1, y1 = self.corners.T
        corners = np.stack([np.stack([x, y], -1) for x, y in ((x0, y0), (x1, y0), (x0, y1), (x1, y1))], axis=1)
        own = maps[self.image]
        old = corners / scale - 1 - own[:, None, :, 2]
        new = (np.linalg.solve(own[:, None, :, :2], old[..., None])[..., 0] + 1) * scale
        return self._placed(np.concatenate([new.min(1), new.max(1)], axis=1), size)

    def resized(self, scale: tuple[float, float], shift: tuple[float, float], size: tuple[int, int]) -> Self:
        """Return the boxes after images were scaled, then shifted into a frame.

        Args:
            scale: of y and x; shift: of y and x, in pixels of the frame.
            size: (height, width) of the frame.
        """
        factor, offset = np.array([*scale[::-1]] * 2), np.array([*shift[::-1]] * 2)
        return self._placed(self.corners * factor + offset, size)

    def _placed(self, corners: np.ndarray, size: tuple[int, int]) -> Self:
        """Return boxes with these corners, cut off at the image's edges; without those of which too little is left."""
        height, width = size
        inside = np.clip(corners, 0, np.array([width, height, width, height]))
        sides, whole = inside[:, 2:] - inside[:, :2], corners[:, 2:] - corners[:, :2]
        visible = self.visible * sides.prod(1) / np.maximum(whole.prod(1), 1e-12)
        kept = (visible >= LEAST_VISIBLE) & (sides >= SHORTEST_SIDE).all(1)
        return type(self)(corners=inside[kept], image=self.image[kept], index=self.index[kept], visible=visible[kept])
