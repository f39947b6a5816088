"""Text files as bytes and as lines, gzipped or not: lines of bounded length, and no more text than a file of that size may
hold."""

from __future__ import annotations

import gzip
import io
import os
import zlib
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

import pyarrow as pa

from tunewright.errors import DataError
from tunewright.files import open_regular, regular
from tunewright.limits import EXPANSION, Limit

# Text that any archive may hold, however small it is.
ALWAYS_ALLOWED = 64 << 20
# Bytes of texts in one batch: lines may be long.
BATCH_BYTES = 64 << 20


def open_text(path: Path) -> BinaryIO:
    """Open a text file, gzipped or not, for reading in binary mode.

    Raises:
        DataError: it is no regular file; while it is read, that it expands to far more than its size.
        OSError: it cannot be opened.
    """
    file = open_regular(path)
    if path.suffix.lower() != ".gz":
        return file
    return io.BufferedReader(_Expanding(path, file), 1 << 16)


def arrow_text(path: Path) -> pa.NativeFile:
    """Return the same for Arrow's readers; what is not compressed they read themselves, faster."""
    if path.suffix.lower() != ".gz":
        return pa.OSFile(os.fspath(regular(path)), "r")
    return pa.PythonFile(open_text(path), "r")


class _Expanding(io.RawIOBase):
    """Decompresses a gzip file and counts what comes out."""

    def __init__(self, path: Path, packed: BinaryIO) -> None:
        self._path = path
        self._packed = packed
        self._size = packed.seek(0, os.SEEK_END)
        packed.seek(0)
        self._text = gzip.GzipFile(fileobj=packed)
        self._count = 0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: bytearray | memoryview) -> int:  # pyright: ignore[reportIncompatibleMethodOverride]
        count = self._text.readinto(buffer)
        self._count += count
        if self._count > ALWAYS_ALLOWED:
            EXPANSION.require(
                self._count / max(1, self._size),
                "the compressed file expands to far more than its size",
                file=self._path,
            )
        return count

    def close(self) -> None:
        self._packed.close()
        super().close()


@contextmanager
def read_whole(path: Path) -> Generator[None]:
    """Turn errors of reading into a DataError that names the file."""
    try:
        yield
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(
            f"the file cannot be read to its end: {error}",
            file=path,
            expected="a whole, readable file",
            fix="restore it from a copy",
        ) from error


def numbered_lines(path: Path, limit: Limit) -> Iterator[tuple[int, bytes]]:
    """Yield each line with its number, counted from 1.

    Raises:
        DataError: the file cannot be read to its end, or a line is longer than `limit`.
    """
    with read_whole(path), open_text(path) as file:
        yield from bounded_lines(file, limit, path)


def bounded_lines(file: BinaryIO, limit: Limit, path: Path | str) -> Iterator[tuple[int, bytes]]:
    """Yield the same of a file that is open, such as standard input."""
    most, number = limit.value, 0
    while raw := file.readline(most + 1):
        number += 1
        if len(raw) > most:
            limit.require(float("inf"), "the line is too long", file=path, place=f"line {number}")
        yield number, raw
