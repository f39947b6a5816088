"""What a person gives `tunewright predict`, as tables that the model reads: a file, lines, a bare text, a picture.

Everything is read in chunks: however long the input, only one chunk is in memory.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from tunewright.data.lines import BATCH_BYTES, bounded_lines, numbered_lines
from tunewright.data.manifest import Rejects
from tunewright.data.source import ROW
from tunewright.data.sources.open import ENDINGS, open_source
from tunewright.data.sources.sample_sets import SAMPLE_SETS
from tunewright.errors import shorten
from tunewright.limits import JSON_LINE, TEXT_LINE
from tunewright.recipe.schema import Data
from tunewright.tasks.base.request import InputChunk, Record, Request
from tunewright.tasks.base.task import Preprocessor
from tunewright.tasks.image.request import PictureRequest

# Rows that are predicted at once: enough to sort by length, few enough to see the first results soon.
ROWS = 1024
# Lines of standard input that are waited for before they are predicted.
LINES = 128


def read_input(data: str, preprocessor: Preprocessor, rejects: Rejects) -> Iterator[InputChunk]:
    """Yield the rows of what was given.

    Args:
        data: a path, a sample set, hub:OWNER/NAME, - for the lines of standard input, JSON, a picture, or a text.

    Raises:
        DataError: it is nothing that the model reads.
    """
    request = preprocessor.request
    suffix = Path(data).suffix.lower()
    if data == "-":
        yield from _from_lines(bounded_lines(sys.stdin.buffer, JSON_LINE, "standard input"), request, rejects)
    elif suffix in request.files:
        yield request.file(data)
    elif request.reads_lines and suffix == ".txt" and Path(data).is_file():
        yield from _from_lines(numbered_lines(Path(data), TEXT_LINE), request, rejects)
    elif _is_source(data):
        yield from _from_source(data, request, rejects)
    elif (record := request.parse(data)) is not None:
        table = request.table([(1, record)], rejects)
        if table.num_rows:
            yield InputChunk(table=table, names=[{}], inputs=request.encoder)
    else:
        yield from _from_source(data, request, rejects)  # which says what is missing


def _is_source(data: str) -> bool:
    """Return whether it is the name of something to be read, there or not, rather than something to be read itself."""
    if data.startswith("hub:") or data in SAMPLE_SETS:
        return True
    if os.path.exists(data):
        return True
    one_word = not any(character.isspace() for character in data) and data[:1] not in ("{", "[")
    named = {*ENDINGS, *PictureRequest.files, ".txt", ".gz", ".json"}
    return one_word and ("/" in data or Path(data).suffix.lower() in named)


def _from_source(data: str, request: Request[Any], rejects: Rejects) -> Iterator[InputChunk]:
    source = open_source(Data(source=data, labelled=False, format=request.data_format), Path("."), request.framing)
    inputs = request.stored(source.known)
    for part in source.parts.values():
        for table in part(rejects):
            for start in range(0, table.num_rows, ROWS):
                ready = request.readable(table.slice(start, ROWS), rejects)
                names = [{"row": row} for row in ready[ROW].to_pylist()]
                if names:
                    yield InputChunk(table=ready, names=names, inputs=inputs)


def _from_lines(lines: Iterable[tuple[int, bytes]], request: Request[Any], rejects: Rejects) -> Iterator[InputChunk]:
    """Lines of text or JSON, or whatever else the model reads in lines."""
    held: list[tuple[int, Record]] = []
    size = 0
    for number, line in lines:
        if not (text := line.decode("utf-8", "replace").strip("\ufeff\r\n ")):
            continue
        record = request.line(text)
        if record is None:
            rejects.add(f"not {request.wanted}", f"line {number}: {shorten(text, 60)}", "correct these lines")
            continue
        held.append((number, record))
        size += len(line)
        if len(held) == LINES or size > BATCH_BYTES:
            yield from request.chunks(held, rejects)
            held, size = [], 0
    if held:
        yield from request.chunks(held, rejects)
