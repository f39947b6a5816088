"""Pictures kept as bytes; a batch of them is framed, changed and turned into numbers when it is asked for."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import Any, Self

import torch
from torch import Tensor

from tunewright.data.batches.batch import BaseExamples, Batch
from tunewright.data.image.augmentation import Augmentation
from tunewright.data.image.color_ops import grey
from tunewright.data.image.resize_crop import Framing


@dataclass(frozen=True, kw_only=True)
class Scaling:
    """From bytes to what the network reads: (x / divisor − mean) / std, for each channel."""

    divisor: float = 255.0
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    reverse: bool = False
    """Blue first, as some networks were trained."""

    def __call__(self, images: Tensor) -> Tensor:
        """Pictures [B, C, H, W] float32 in [0, 1] as the network reads them; may change its argument."""
        if self.divisor != 255:
            images = images.mul_(255 / self.divisor)
        if self.mean is not None and self.std is not None:
            mean, std = (torch.tensor(values, device=images.device)[:, None, None] for values in (self.mean, self.std))
            images = images.sub_(mean).div_(std)
        return images.flip(1) if self.reverse else images

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> Self:
        facts: dict[str, Any] = {key: tuple(e) if isinstance(e, list) else e for key, e in value.items()}
        return cls(**facts)


@dataclass(frozen=True, kw_only=True)
class PictureExamples(BaseExamples):
    """Pictures of one size."""

    stored: Tensor
    """[N, H, W, C] uint8; on the CPU where they are to be framed."""
    target: Tensor | None
    rows: Tensor
    framing: Framing | None
    """None: they are stored as the network reads them."""
    channels: int
    """What the network reads; grey becomes three equal channels, colours become grey."""
    scaling: Scaling
    augmentation: Augmentation | None = None
    """Acts where a batch is asked for with its epoch, as training does."""
    device: torch.device | None = None
    """Where batches lie; None: on the CPU."""

    @property
    def lengths(self) -> None:
        return None

    @property
    def augmented(self) -> bool:
        return self.augmentation is not None

    def __len__(self) -> int:
        return self.stored.shape[0]

    def to(self, device: torch.device) -> PictureExamples:
        """Return the same examples in a device's memory, so that no batch has to be copied there, unless each is framed first."""
        stored = self.stored.to(device) if self.framing is None else self.stored
        return replace(
            self, stored=stored, target=None if self.target is None else self.target.to(device), device=device
        )

    def with_augmentation(self, augmentation: Augmentation) -> PictureExamples:
        return replace(self, augmentation=augmentation)

    def batch(self, ids: Tensor, epoch: int | None = None) -> Batch:
        """Pictures [B, C, H, W] float32; the target is [B, K] float32 where pictures are mixed."""
        images = self.images(ids)
        target = None if self.target is None else self.target.index_select(0, ids.to(self.target.device))
        if self.augmentation is None or epoch is None:
            return Batch(self.scaling(images), target, ids)
        change = self.augmentation
        draw = change.draw(ids, epoch, images.device)
        images = change.change(images, draw)
        if change.mixes:
            assert self.target is not None and target is not None
            partners = change.partners(draw, len(self))
            others = change.change(self.images(partners), change.draw(partners, epoch, images.device))
            images, share = change.mix(images, others, draw)
            target = change.soften(target, self.target.index_select(0, partners.to(self.target.device)), share)
        return Batch(self.scaling(images), target, ids)

    def images(self, ids: Tensor) -> Tensor:
        """Return the pictures [B, C, H, W] float32 in [0, 1], framed, not yet scaled."""
        pixels = self.stored.index_select(0, ids.to(self.stored.device))
        if self.framing is not None:
            pixels = torch.from_numpy(self.framing.batch(pixels.numpy())).to(self.device)
        images = pixels.permute(0, 3, 1, 2).to(torch.float32, memory_format=torch.contiguous_format).div_(255)
        if images.shape[1] == self.channels:
            return images
        return images.expand(-1, self.channels, -1, -1).contiguous() if images.shape[1] == 1 else grey(images)
