"""Read pictures that a person asks about."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from tunewright.data.image.resize_crop import Framing
from tunewright.data.manifest import Column, Rejects
from tunewright.data.source import ROW, image_column
from tunewright.errors import DataError
from tunewright.tasks.base.encoders import InputEncoder
from tunewright.tasks.base.request import InputChunk, Record, Request
from tunewright.tasks.image.encoder import PixelEncoder

# The key under which a line names a picture's file.
FILE = "file"


class PictureRequest(Request[PixelEncoder]):
    """Pictures by their files or contents; a line of standard input names a file."""

    kind = "picture"
    files = frozenset({".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp", ".tif", ".tiff"})
    media_types = ("image/png", "image/jpeg", "image/webp", "image/bmp", "image/gif", "image/tiff")
    formats = "a PNG or JPEG"

    @property
    def framing(self) -> Framing:
        return self.encoder.file_framing

    def line(self, text: str) -> Record:
        return {FILE: text}

    def chunks(self, rows: list[tuple[int, Record]], rejects: Rejects) -> Iterator[InputChunk]:
        found: list[tuple[int, str, Any]] = []
        for number, record in rows:
            name = record[FILE]
            pixels = self._decoded(name)
            if isinstance(pixels, str):
                rejects.add("the picture cannot be read", f"{name}: {pixels}", "restore these files, or remove them")
            else:
                found.append((number, name, pixels))
        if found:
            yield self._chunk(found)

    def file(self, path: str) -> InputChunk:
        return self._chunk([(1, path, self._pixels(path, path))])

    def content(self, content: bytes) -> InputChunk:
        return self._chunk([(1, "picture 1", self._pixels(content, "picture 1"))])

    def stored(self, columns: Mapping[str, Column]) -> InputEncoder:
        column = columns.get(self.encoder.column)
        return self.encoder if column is None else self.encoder.reads(column)

    @property
    def _column(self) -> Column:
        """How pictures are stored in the table of a request."""
        encoder = self.encoder
        return Column(name=encoder.column, kind="image", shape=(*self.framing.size, encoder.channels), framed=True)

    def _pixels(self, picture: str | bytes, name: str) -> Any:
        """Return the framed bytes [H, W, C] of a picture by its path or content.

        Raises:
            DataError: it cannot be read.
        """
        pixels = self._decoded(picture)
        if isinstance(pixels, str):
            raise DataError(
                f"the picture cannot be read: {pixels}",
                file=name,
                expected="a PNG, JPEG or other picture",
                fix="check the file",
            )
        return pixels

    def _decoded(self, picture: str | bytes) -> Any:
        """Return the framed bytes, or what is wrong with the picture."""
        from tunewright.data.sources.images import decode

        return decode(Path(picture) if isinstance(picture, str) else picture, self._column, self.framing)

    def _chunk(self, found: list[tuple[int, str, Any]]) -> InputChunk:
        column = image_column(self.encoder.column, np.stack([pixels for _, _, pixels in found]))
        rows = pa.array([number for number, _, _ in found], pa.int64())
        return InputChunk(
            table=pa.table({self.encoder.column: column, ROW: rows}),
            names=[{"file": name} for _, name, _ in found],
            inputs=self.encoder.reads(self._column),
        )
