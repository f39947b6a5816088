"""Plain text: one text a line."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pyarrow as pa

from tunewright.data.lines import BATCH_BYTES, numbered_lines
from tunewright.data.manifest import Column, Rejects
from tunewright.data.source import BATCH_ROWS, ROW, Source
from tunewright.errors import DataError
from tunewright.limits import TEXT_LINE

COLUMN = "text"


def read_text(path: Path) -> Source:
    """Read a text file, gzipped or not, as one column `text`; rows are numbered as lines are.

    Raises:
        DataError: now for the first line, or when it is read: a line is not UTF-8 text, or the file is cut short.
    """
    next(text_lines(path), None)
    known = {COLUMN: Column(name=COLUMN, kind="text")}
    return Source(format="text", parts={"all": partial(_batches, path)}, files=[path], known=known)


def _batches(path: Path, rejects: Rejects) -> Iterator[pa.Table]:
    numbers: list[int] = []
    texts: list[str] = []
    size = 0
    for number, text in text_lines(path):
        if not text.strip():
            rejects.add("a blank line", f"line {number}", "nothing need be done: a blank line holds no text")
            continue
        numbers.append(number)
        texts.append(text)
        size += len(text)
        if len(texts) == BATCH_ROWS or size > BATCH_BYTES:
            yield _table(numbers, texts)
            numbers, texts, size = [], [], 0
    yield _table(numbers, texts)


def _table(numbers: list[int], texts: list[str]) -> pa.Table:
    return pa.table({COLUMN: pa.array(texts, pa.string()), ROW: pa.array(numbers, pa.int64())})


def text_lines(path: Path) -> Iterator[tuple[int, str]]:
    """Yield each line with its number, without its end."""
    for number, raw in numbered_lines(path, TEXT_LINE):
        try:
            text = raw.decode("utf-8-sig" if number == 1 else "utf-8")
        except UnicodeDecodeError as error:
            raise _not_text(path, number, f"the byte 0x{raw[error.start]:02x}") from None
        if "\0" in text:
            raise _not_text(path, number, "a NUL byte")
        yield number, text.rstrip("\r\n")


def _not_text(path: Path, line: int, found: str) -> DataError:
    return DataError(
        "the file is not UTF-8 text",
        file=path,
        place=f"line {line}",
        found=found,
        expected="UTF-8",
        fix="save the file as UTF-8",
    )
