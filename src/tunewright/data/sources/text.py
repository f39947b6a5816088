"""Plain text: one text a line."""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pyarrow as pa

from tunewright.data.columns import Column, Rejects
from tunewright.data.sources.base import BATCH_ROWS, ROW, Source
from tunewright.errors import DataError

COLUMN = "text"


def read_text(path: Path) -> Source:
    """A text file, gzipped or not, as one column `text`; rows are numbered as lines are.

    Raises:
        DataError: when it is read: a line is not UTF-8 text, or the file is cut short.
    """
    known = {COLUMN: Column(name=COLUMN, kind="text")}
    return Source(format="text", parts={"all": partial(_batches, path)}, files=[path], known=known)


def _batches(path: Path, rejects: Rejects) -> Iterator[pa.Table]:
    numbers: list[int] = []
    texts: list[str] = []
    for number, text in _lines(path):
        if not text.strip():
            rejects.add("a blank line", f"line {number}", "nothing need be done: a blank line holds no text")
            continue
        numbers.append(number)
        texts.append(text)
        if len(texts) == BATCH_ROWS:
            yield _table(numbers, texts)
            numbers, texts = [], []
    yield _table(numbers, texts)


def _table(numbers: list[int], texts: list[str]) -> pa.Table:
    return pa.table({COLUMN: pa.array(texts, pa.string()), ROW: pa.array(numbers, pa.int64())})


def _lines(path: Path) -> Iterator[tuple[int, str]]:
    """Each line with its number, without its end."""
    try:
        with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as file:
            for number, raw in enumerate(file, start=1):
                try:
                    text = raw.decode("utf-8-sig" if number == 1 else "utf-8")
                except UnicodeDecodeError as error:
                    raise _not_text(path, number, f"the byte 0x{raw[error.start]:02x}") from None
                if "\0" in text:
                    raise _not_text(path, number, "a NUL byte")
                yield number, text.rstrip("\r\n")
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(
            f"the file cannot be read to its end: {error}",
            file=path,
            expected="a whole, readable file",
            fix="restore it from a copy",
        ) from error


def _not_text(path: Path, line: int, found: str) -> DataError:
    return DataError(
        "the file is not UTF-8 text",
        file=path,
        place=f"line {line}",
        found=found,
        expected="UTF-8",
        fix="save the file as UTF-8",
    )
