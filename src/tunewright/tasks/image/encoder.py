"""Images as input: stored bytes, framed and scaled as the network's weights expect it."""

from __future__ import annotations

import base64
import io
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor
from torch.nn.functional import interpolate

from tunewright.data.batches.batch import Truth
from tunewright.data.image.image_examples import PictureExamples, Scaling
from tunewright.data.image.resize_crop import Framing
from tunewright.data.manifest import Column
from tunewright.data.prepared import Prepared, column_array
from tunewright.errors import DataError
from tunewright.models.backbone import Backbone
from tunewright.recipe.schema import Recipe
from tunewright.tasks.base.encoders import InputEncoder
from tunewright.tasks.image.processor import backbone_processor, write_processor
from tunewright.training.privacy.lineage import Statistic

# The linear baseline sees pictures of at most this side: a linear model gains nothing from more pixels, and drowns in them.
PLAIN_SIDE = 32
# Pictures in a report are shown at most this large.
SHOWN_SIDE = 96
# Pictures that were stored in another size than the network reads are framed once if they then take less memory than this.
FRAMED_BYTES = 2**30
CHUNK = 256


@dataclass(frozen=True, kw_only=True)
class PixelEncoder(InputEncoder):
    """Bytes to numbers, channels first."""

    column: str
    stored: tuple[int, int, int]
    """Height, width and channels as they are stored."""
    framed: bool
    """They were given the network's size when they were stored."""
    framing: Framing | None
    """How any picture gets the network's size; None: the network reads them as they are."""
    channels: int
    """What the network reads."""
    scaling: Scaling
    processor: dict[str, Any] | None
    """The pretrained backbone's own description of all this, in the Transformers library's format."""

    plain_name: ClassVar[str] = "linear model on raw inputs"
    plain_rows: ClassVar[int] = 10_000

    @property
    def input_shape(self) -> tuple[int, int, int]:
        height, width = self.framing.size if self.framing else self.stored[:2]
        return self.channels, height, width

    def examples(self, table: pa.Table, target: Truth) -> PictureExamples:
        """Return the rows, kept as bytes."""
        pixels = self._pixels(table)
        framing = None if self.framed or self._fits() else self.framing
        if framing is not None and len(pixels) * self.stored[2] * framing.size[0] * framing.size[1] <= FRAMED_BYTES:
            # Once for all epochs; the bytes are those that each batch would get.
            pixels, framing = framing.batch(pixels), None
        return PictureExamples(
            stored=_tensor(pixels),
            target=target,
            rows=torch.tensor(np.asarray(table["_row"])),
            framing=framing,
            channels=self.channels,
            scaling=self.scaling,
        )

    def plain(self, train: pa.Table, test: pa.Table) -> tuple[Tensor, Tensor]:
        """Return [N, C, H, W] float32 in [0, 1], shrunk to at most 32 pixels a side."""
        first, second = (self._small(table) for table in (train, test))
        return first, second

    def show(self, table: pa.Table, index: int) -> dict[str, Any]:
        from PIL import Image

        pixels = self._pixels(table.slice(index, 1))[0]
        image = Image.fromarray(pixels[:, :, 0] if pixels.shape[2] == 1 else pixels)
        image.thumbnail((SHOWN_SIDE, SHOWN_SIDE))
        buffer = io.BytesIO()
        image.save(buffer, format="PNG", optimize=True)
        return {"image": "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()}

    def to_json(self) -> dict[str, Any]:
        return {
            "column": self.column,
            "stored": self.stored,
            "framed": self.framed,
            "framing": self.framing.to_json() if self.framing else None,
            "channels": self.channels,
            "scaling": self.scaling.to_json(),
            "processor": self.processor,
        }

    def statistics(self, prepared: Prepared, owner: str | None) -> list[Statistic]:
        return []  # bytes are scaled by fixed numbers, or by a pretrained network's own

    def write(self, folder: Path) -> None:
        """The description of a pretrained backbone's pictures, in the library's format."""
        if self.processor is not None:
            folder.mkdir(parents=True, exist_ok=True)
            write_processor(self.processor, folder)

    @property
    def file_framing(self) -> Framing:
        """How a picture from a file is framed for this network."""
        size = self.stored[:2]
        return self.framing or Framing(size=size, scale_to=size)

    def reads(self, stored: Column) -> PixelEncoder:
        """Return the encoder for a table in which the pictures are stored in another way."""
        assert stored.shape is not None
        height, width, channels = stored.shape
        return replace(self, stored=(height, width, channels), framed=stored.framed)

    def _fits(self) -> bool:
        """Return whether framing would leave the stored pictures as they are."""
        framing, size = self.framing, self.stored[:2]
        return framing is not None and framing.scaled(*size) == size == framing.size

    def _small(self, table: pa.Table) -> Tensor:
        parts: list[Tensor] = []
        for start in range(0, table.num_rows, CHUNK):
            pixels = _tensor(self._pixels(table.slice(start, CHUNK))).permute(0, 3, 1, 2)
            images = pixels.to(torch.float32, memory_format=torch.contiguous_format).div_(255)
            size = [min(side, PLAIN_SIDE) for side in images.shape[2:]]
            parts.append(interpolate(images, size, mode="area") if size != list(images.shape[2:]) else images)
        return torch.cat(parts)

    def _pixels(self, table: pa.Table) -> np.ndarray:
        if self.column not in table.column_names:
            raise DataError(
                f"the data has no column {self.column!r}",
                found=", ".join(table.column_names),
                expected=f"images in a column {self.column!r}, as the model was trained on",
                fix="rename the column, or name it with data.input",
            )
        return column_array(table, Column(name=self.column, kind="image", shape=self.stored))


def frame_pictures(recipe: Recipe, backbone: Backbone | None) -> tuple[Framing | None, str | None]:
    """Return how pictures in files get one size while they are prepared, and what had to be assumed for it."""
    if backbone is not None:
        processor = backbone_processor(backbone, recipe.data.resize)
        return processor.framing, processor.note
    return _own_framing(recipe), None


def fit_pixels(
    prepared: Prepared, recipe: Recipe, backbone: Backbone | None, known: PixelEncoder | None
) -> PixelEncoder:
    """Fit the encoder for the one image column of a prepared set. A network keeps the scaling that it was trained with,
    a pretrained one also with its framing.

    Raises:
        DataError: there is no image column, or several.
        ArtifactError: what the backbone says of its pictures is not understood.
    """
    images = [column for column in prepared.manifest.columns if column.kind == "image"]
    images = [column for column in images if column.name in prepared.manifest.input]
    if len(images) != 1 or images[0].shape is None:
        found = ", ".join(f"{column.name} ({column.kind})" for column in prepared.manifest.columns)
        raise DataError(
            f"image classification needs one image column as input, the data has {len(images)}",
            file=prepared.manifest.source,
            found=found,
            expected="a folder of images by class, idx files, or an image column named with data.input",
            fix="for a table of numbers use task: tabular-classification",
        )
    height, width, channels = images[0].shape
    processor = None if backbone is None else backbone_processor(backbone, recipe.data.resize)
    found = PixelEncoder(
        column=images[0].name,
        stored=(height, width, channels),
        framed=images[0].framed,
        framing=processor.framing if processor else _own_framing(recipe),
        channels=processor.channels if processor else channels,
        scaling=processor.scaling if processor else Scaling(),
        processor=processor.config if processor else None,
    )
    if known is None:
        return found
    return replace(
        found,
        framing=found.framing or (known.framing if known.processor else None),
        channels=known.channels,
        scaling=known.scaling,
        processor=found.processor or known.processor,
    )


def load_pixels(value: dict[str, Any], folder: Path) -> PixelEncoder:
    """Load the encoder from its JSON."""
    height, width, channels = value["stored"]
    return PixelEncoder(
        column=value["column"],
        stored=(height, width, channels),
        framed=value["framed"],
        framing=Framing.from_json(value["framing"]) if value["framing"] else None,
        channels=value["channels"],
        scaling=Scaling.from_json(value["scaling"]),
        processor=value["processor"],
    )


def _tensor(pixels: np.ndarray) -> Tensor:
    """Return the same memory, or a copy of what must not be written to: torch has no tensors of that kind."""
    return torch.from_numpy(pixels if pixels.flags.writeable else pixels.copy())


def _own_framing(recipe: Recipe) -> Framing | None:
    """`data.resize` for a network of ours: straight to that size."""
    size = recipe.data.resize
    return None if size is None else Framing(size=size, scale_to=size)
