"""What a person gives `tunewright predict`, as tables that the model reads: a file, lines, a bare text, a picture.

Everything is read piece by piece: however long the input, only one piece is in memory.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa

from tunewright.data.lines import BATCH_BYTES, bounded_lines, numbered_lines
from tunewright.data.manifest import Column, Rejects
from tunewright.data.prepare.row_filter import usable_rows
from tunewright.data.source import ROW
from tunewright.data.sources.open import ENDINGS, open_source
from tunewright.data.sources.sample_sets import SAMPLE_SETS
from tunewright.errors import shorten
from tunewright.limits import COLUMNS, JSON_LINE, TEXT_LINE
from tunewright.recipe.schema import Data
from tunewright.tasks.base.request import InputChunk
from tunewright.tasks.base.task import InputEncoder
from tunewright.tasks.image.encoder import PixelEncoder
from tunewright.tasks.image.request import PICTURES, picture_pieces
from tunewright.tasks.language_model.chat_encoder import ChatEncoder
from tunewright.tasks.recommendation.categorical_encoder import FieldEncoder
from tunewright.tasks.recommendation.interaction_encoder import InteractionEncoder
from tunewright.tasks.speech.encoder import SpeechEncoder
from tunewright.tasks.speech.request import SOUNDS, sound_piece
from tunewright.tasks.table.encoder import RowEncoder
from tunewright.tasks.text.encoder import TokenEncoder

# Rows that are predicted in one go: enough to sort by length, few enough to see the first results soon.
PIECE = 1024
# Lines of standard input that are waited for before they are predicted.
LINES = 128


def given_pieces(data: str, inputs: InputEncoder, rejects: Rejects) -> Iterator[InputChunk]:
    """The rows of what was given.

    Args:
        data: a path, a sample set, hub:OWNER/NAME, - for the lines of standard input, JSON, a picture, or a text.

    Raises:
        DataError: it is nothing that the model reads.
    """
    if data == "-":
        yield from _from_lines(bounded_lines(sys.stdin.buffer, JSON_LINE, "standard input"), inputs, rejects)
    elif isinstance(inputs, PixelEncoder) and Path(data).suffix.lower() in PICTURES:
        yield from picture_pieces([(1, data)], inputs, None)
    elif isinstance(inputs, TokenEncoder) and Path(data).suffix.lower() == ".txt" and Path(data).is_file():
        yield from _from_lines(numbered_lines(Path(data), TEXT_LINE), inputs, rejects)
    elif isinstance(inputs, SpeechEncoder) and Path(data).suffix.lower() in SOUNDS:
        yield sound_piece(data, inputs)
    elif _is_source(data):
        yield from _from_source(data, inputs, rejects)
    elif (record := row_of(data, inputs)) is not None:
        table = rows_table([(1, record)], inputs, rejects)
        if table.num_rows:
            yield InputChunk(table=table, names=[{}], inputs=inputs)
    else:
        yield from _from_source(data, inputs, rejects)  # which says what is missing


def _is_source(data: str) -> bool:
    """Whether it is the name of something to be read, there or not, rather than something to be read itself."""
    if data.startswith("hub:") or data in SAMPLE_SETS:
        return True
    if os.path.exists(data):
        return True
    one_word = not any(character.isspace() for character in data) and data[:1] not in ("{", "[")
    return one_word and ("/" in data or Path(data).suffix.lower() in {*ENDINGS, *PICTURES, ".txt", ".gz", ".json"})


def _from_source(data: str, inputs: InputEncoder, rejects: Rejects) -> Iterator[InputChunk]:
    framing = inputs.file_framing if isinstance(inputs, PixelEncoder) else None
    format = "speech" if isinstance(inputs, SpeechEncoder) else None
    source = open_source(Data(source=data, labelled=False, format=format), Path("."), framing)
    if isinstance(inputs, PixelEncoder) and (stored := source.known.get(inputs.column)) is not None:
        inputs = inputs.reads(stored)
    for part in source.parts.values():
        for table in part(rejects):
            for start in range(0, table.num_rows, PIECE):
                ready = _readable(table.slice(start, PIECE), inputs, rejects)
                names = [{"row": row} for row in ready[ROW].to_pylist()]
                if names:
                    yield InputChunk(table=ready, names=names, inputs=inputs)


def _from_lines(lines: Iterable[tuple[int, bytes]], inputs: InputEncoder, rejects: Rejects) -> Iterator[InputChunk]:
    """Lines of text or JSON; for a model of pictures the lines are names of files."""
    held: list[tuple[int, Any]] = []
    size = 0
    pictures = isinstance(inputs, PixelEncoder)
    for number, line in lines:
        if not (text := line.decode("utf-8", "replace").strip("\ufeff\r\n ")):
            continue
        record = text if pictures else row_of(text, inputs)
        if record is None:
            rejects.add(f"not {_wanted(inputs)}", f"line {number}: {shorten(text, 60)}", "correct these lines")
            continue
        held.append((number, record))
        size += len(line)
        if len(held) == LINES or size > BATCH_BYTES:
            yield from _held(held, inputs, rejects)
            held, size = [], 0
    yield from _held(held, inputs, rejects)


def _held(held: list[tuple[int, Any]], inputs: InputEncoder, rejects: Rejects) -> Iterator[InputChunk]:
    if not held:
        return
    if isinstance(inputs, PixelEncoder):
        yield from picture_pieces(held, inputs, rejects)
        return
    table = rows_table(held, inputs, rejects)
    if table.num_rows:
        yield InputChunk(table=table, names=[{"row": row} for row in table[ROW].to_pylist()], inputs=inputs)


def row_of(text: str, inputs: InputEncoder) -> dict[str, Any] | None:
    """One row from JSON, or from a text itself where the model reads one; None where it is neither."""
    try:
        value = json.loads(text) if text[:1] in ("{", "[", '"') else text
    except (ValueError, RecursionError):
        value = text  # a text that merely begins so
    if isinstance(value, dict):
        return value
    if isinstance(inputs, InteractionEncoder):
        return {inputs.user: text}
    if not isinstance(inputs, TokenEncoder):
        return None
    if isinstance(inputs, ChatEncoder):
        return {"prompt": text}
    values = value if isinstance(value, list) else [value]
    if len(values) != len(inputs.columns) or not all(isinstance(entry, str) for entry in values):
        # [ and { are good beginnings of a text, too.
        return {inputs.columns[0]: text} if len(inputs.columns) == 1 else None
    return dict(zip(inputs.columns, values))


def rows_table(rows: list[tuple[int, dict[str, Any]]], inputs: InputEncoder, rejects: Rejects) -> pa.Table:
    """Numbered rows as the model reads them; those that it cannot read are counted in `rejects`."""
    rows = [(row, record) for row, record in rows if _is_written(row, record, rejects)]
    names = dict.fromkeys(name for _, record in rows for name in record)
    COLUMNS.require(len(names), "the rows have too many different keys")
    columns = {name: pa.array([_cell(record.get(name)) for _, record in rows], pa.string()) for name in names}
    return _readable(pa.table({**columns, ROW: pa.array([row for row, _ in rows], pa.int64())}), inputs, rejects)


def _is_written(row: int, record: dict[str, Any], rejects: Rejects) -> bool:
    """Whether the row can be written as text: halves of characters and very deep lists cannot."""
    try:
        json.dumps(record, ensure_ascii=False).encode()
    except (UnicodeEncodeError, RecursionError) as error:
        rejects.add("it cannot be written as text", f"row {row}: {shorten(error, 60)}", "correct these rows")
        return False
    return True


def _cell(value: Any) -> str | None:
    if value is None or isinstance(value, str):
        return value or None
    return json.dumps(value)


def _readable(table: pa.Table, inputs: InputEncoder, rejects: Rejects) -> pa.Table:
    """The model's columns, numbers as numbers; a row with a cell that is none is left out and counted."""
    if isinstance(inputs, TokenEncoder):
        names = [name for name in table.column_names if name != ROW]
        if len(inputs.columns) == 1 and len(names) == 1:
            table = table.rename_columns([inputs.columns[0] if name != ROW else ROW for name in table.column_names])
        return table
    if isinstance(inputs, RowEncoder):
        known = {feature.column: Column(name=feature.column, kind=feature.kind) for feature in inputs.features}
    elif isinstance(inputs, FieldEncoder):
        table = inputs.with_lists(table)
        known = {field.column: Column(name=field.column, kind=field.kind) for field in inputs.fields}
    else:
        return table
    columns = {name: column for name, column in known.items() if name in table.column_names}
    return usable_rows(table, columns, set(columns), None, rejects)


def _wanted(inputs: InputEncoder) -> str:
    if isinstance(inputs, TokenEncoder) and len(inputs.columns) > 1:
        return 'a pair such as ["first", "second"]'
    return "a JSON object such as {column: value}"
