"""Images as input: stored bytes to tensors, resized where the recipe says so."""

from __future__ import annotations

import base64
import io
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor
from torch.nn.functional import interpolate

from tunewright.data.batching import TensorExamples
from tunewright.data.columns import Column
from tunewright.data.prepare import Prepared, column_array
from tunewright.errors import DataError
from tunewright.models.pretrained import Backbone
from tunewright.recipe.schema import Recipe


@dataclass(frozen=True, kw_only=True)
class PixelEncoder:
    """uint8 pixels as floats in [0, 1], channels first."""

    column: str
    stored: tuple[int, int, int]
    """Height, width and channels as they are stored."""
    resize: tuple[int, int] | None
    """Height and width that the network gets; None: as stored."""

    plain_name: str = "linear model on raw inputs"
    plain_rows: int = 10_000

    @property
    def input_shape(self) -> tuple[int, int, int]:
        height, width = self.resize or self.stored[:2]
        return self.stored[2], height, width

    def encode(self, table: pa.Table) -> Tensor:
        """[N, C, H, W] float32 in [0, 1]; bilinear with anti-aliasing where the size changes."""
        pixels = self._pixels(table)
        tensor = torch.from_numpy(pixels).permute(0, 3, 1, 2)
        images = tensor.to(torch.float32, memory_format=torch.contiguous_format).div_(255)
        if self.resize is not None and self.resize != self.stored[:2]:
            images = interpolate(images, self.resize, mode="bilinear", antialias=True)
        return images

    def examples(self, table: pa.Table, target: Tensor | None) -> TensorExamples:
        return TensorExamples(self.encode(table), target, torch.tensor(np.asarray(table["_row"])))

    def plain(self, train: pa.Table, test: pa.Table) -> tuple[Tensor, Tensor]:
        return self.encode(train), self.encode(test)

    def show(self, table: pa.Table, index: int) -> dict[str, Any]:
        from PIL import Image

        pixels = self._pixels(table.slice(index, 1))[0]
        image = Image.fromarray(pixels[:, :, 0] if pixels.shape[2] == 1 else pixels)
        buffer = io.BytesIO()
        image.save(buffer, format="PNG", optimize=True)
        return {"image": "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()}

    def to_json(self) -> dict[str, Any]:
        return {"column": self.column, "stored": self.stored, "resize": self.resize}

    def write(self, folder: Path) -> None:
        """Nothing: the JSON holds all."""

    def _pixels(self, table: pa.Table) -> np.ndarray:
        if self.column not in table.column_names:
            raise DataError(
                f"the data has no column {self.column!r}",
                found=", ".join(table.column_names),
                expected=f"images in a column {self.column!r}, as the model was trained on",
                fix="rename the column, or name it with data.input",
            )
        return column_array(table, Column(name=self.column, kind="image", missing=0, shape=self.stored))


def fit_pixels(
    prepared: Prepared, recipe: Recipe, backbone: Backbone | None, known: PixelEncoder | None
) -> PixelEncoder:
    """The encoder for the one image column of a prepared set. Pixels mean the same in every set, whatever was known.

    Raises:
        DataError: there is no image column, or several.
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
    return PixelEncoder(column=images[0].name, stored=(height, width, channels), resize=recipe.data.resize)


def load_pixels(value: dict[str, Any], folder: Path) -> PixelEncoder:
    """The encoder from its JSON."""
    resize = value["resize"]
    return PixelEncoder(
        column=value["column"], stored=tuple(value["stored"]), resize=tuple(resize) if resize is not None else None
    )
