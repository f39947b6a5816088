"""How a picture of any size becomes one of the size that a network reads: shrink or enlarge it, then cut out the middle.

All of it works on bytes, in the order and with the rounding of the Transformers library's processors. So a picture can be
framed once when the data is prepared, and what is stored is what the backbone was trained to see.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal, Self

import numpy as np
from PIL import Image, ImageOps

from tunewright.data.image.boxes import Boxes

Filter = Literal["nearest", "bilinear", "bicubic", "lanczos"]
PILLOW = {
    "nearest": Image.Resampling.NEAREST,
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
    "lanczos": Image.Resampling.LANCZOS,
}
# What 16-bit grey and other modes with one channel are called by Pillow.
WIDE_MODES = ("I", "I;16", "I;16B", "I;16L", "F")


@dataclass(frozen=True, kw_only=True)
class Framing:
    """A size for all pictures.

    size: (height, width) in the end; what is larger after scaling is cut off evenly, what is smaller gets black borders.
    scale_to: scale to this height and width first; or scale so that the shorter side has so many pixels, keeping the
    proportions; None: do not scale.
    """

    size: tuple[int, int]
    scale_to: tuple[int, int] | int | None
    filter: Filter = "bilinear"

    def scaled(self, height: int, width: int) -> tuple[int, int]:
        """Return the size after scaling, before the cut."""
        if self.scale_to is None:
            return height, width
        if not isinstance(self.scale_to, int):
            return self.scale_to
        if height <= width:
            return self.scale_to, int(self.scale_to * width / height)
        return int(self.scale_to * height / width), self.scale_to

    def picture(self, image: Image.Image) -> np.ndarray:
        """Return a grey or RGB picture of Pillow as [height, width, channels] uint8."""
        height, width = self.scaled(image.height, image.width)
        if image.size != (width, height):
            image = image.resize((width, height), PILLOW[self.filter])
        if (height, width) != self.size:
            top, left = self._offset(height, width)
            image = image.crop((-left, -top, self.size[1] - left, self.size[0] - top))
        return np.asarray(image, dtype=np.uint8).reshape(*self.size, -1)

    def _offset(self, height: int, width: int) -> tuple[int, int]:
        """Return where the upper left corner of a scaled picture lies in the frame; negative where it is cut off."""
        return (self.size[0] - height + 1) // 2, (self.size[1] - width + 1) // 2

    def boxes(self, boxes: Boxes, height: int, width: int) -> Boxes:
        """Return the boxes of a picture of this size, in the frame; see `boxes.py` for those that are dropped."""
        scaled = self.scaled(height, width)
        return boxes.resized((scaled[0] / height, scaled[1] / width), self._offset(*scaled), self.size)

    def batch(self, pixels: np.ndarray) -> np.ndarray:
        """Pictures [N, H, W, C] uint8 of one size as [N, *size, C] uint8, each as `picture` gives it."""
        channels = pixels.shape[3]
        if channels == 3:
            return np.stack([self.picture(Image.fromarray(pixel)) for pixel in pixels])
        single = [[self.picture(Image.fromarray(pixel[:, :, c])) for c in range(channels)] for pixel in pixels]
        return np.stack([np.concatenate(parts, axis=2) for parts in single])

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> Self:
        facts: dict[str, Any] = {key: tuple(e) if isinstance(e, list) else e for key, e in value.items()}
        return cls(**facts)


def upright(image: Image.Image, channels: int) -> Image.Image:
    """Return a picture as it is meant to be seen: turned as its camera noted, in 8-bit grey or RGB; 16-bit grey scaled down."""
    image = ImageOps.exif_transpose(image)
    if image.mode in WIDE_MODES:
        values = np.asarray(image)
        divisor, grey = 257.0 if values.max() > 255 else 1.0, np.empty(values.shape, np.uint8)
        for row, line in enumerate(values):  # a large picture in float64 would take eight times its memory
            grey[row] = np.clip(line.astype(np.float64) / divisor, 0, 255)
        image = Image.fromarray(grey)
    return image.convert("L" if channels == 1 else "RGB")


def upright_size(image: Image.Image) -> tuple[int, int]:
    """Height and width of what `upright` gives, from the header alone."""
    turned = image.getexif().get(0x0112, 1) >= 5
    return (image.width, image.height) if turned else (image.height, image.width)
