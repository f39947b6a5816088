"""Read pictures that a person asks about."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa

from tunewright.data.manifest import Column, Rejects
from tunewright.data.source import ROW, image_column
from tunewright.errors import DataError
from tunewright.tasks.base.request import InputChunk
from tunewright.tasks.image.encoder import PixelEncoder

PICTURES = {".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp", ".tif", ".tiff"}


def picture_pieces(
    files: list[tuple[int, str | bytes]], inputs: PixelEncoder, rejects: Rejects | None
) -> Iterator[InputChunk]:
    """Pictures by their paths or contents; without `rejects` one that cannot be read is an error."""
    import numpy as np

    from tunewright.data.sources.images import decode

    framing = inputs.file_framing
    stored = Column(name=inputs.column, kind="image", shape=(*framing.size, inputs.channels), framed=True)
    found: list[tuple[int, str, Any]] = []
    for number, picture in files:
        name = picture if isinstance(picture, str) else f"picture {number}"
        pixels = decode(Path(picture) if isinstance(picture, str) else picture, stored, framing)
        if not isinstance(pixels, str):
            found.append((number, name, pixels))
        elif rejects is not None:
            rejects.add("the picture cannot be read", f"{name}: {pixels}", "restore these files, or remove them")
        else:
            raise DataError(
                f"the picture cannot be read: {pixels}",
                file=name,
                expected="a PNG, JPEG or other picture",
                fix="check the file",
            )
    if found:
        column = image_column(inputs.column, np.stack([pixels for _, _, pixels in found]))
        rows = pa.array([number for number, _, _ in found], pa.int64())
        names = [{"file": name} for _, name, _ in found]
        yield InputChunk(table=pa.table({inputs.column: column, ROW: rows}), names=names, inputs=inputs.reads(stored))
