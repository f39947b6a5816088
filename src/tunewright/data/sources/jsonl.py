"""JSON lines: one object a line; numbers stay numbers, lists of plain values stay lists, everything else is text."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa

from tunewright.data.lines import BATCH_BYTES, numbered_lines
from tunewright.data.manifest import Column, Rejects
from tunewright.data.source import ROW, Source
from tunewright.data.text.conversations import is_turns
from tunewright.errors import DataError, shorten
from tunewright.limits import COLUMNS, EMPTY_CELLS, JSON_LINE

BATCH_LINES = 16_384
# Of wide tables a batch holds fewer lines.
BATCH_CELLS = 16_000_000
MOST_DEPTH = 100
# How JSON writes half of a character that has two; halves alone are no text.
HALVES = (b"\\ud", b"\\uD")


def read_jsonl(path: Path, format: str) -> Source:
    """A JSON-lines file, gzipped or not.

    Raises:
        DataError: there is not one good object in it.
    """
    names: dict[str, None] = {}
    excess: Counter[str] = Counter()  # lists less single values
    filled = 0
    for number, record, _ in _records(path, Rejects()):
        names.update(dict.fromkeys(record))
        filled += len(record)
        COLUMNS.require(len(names), "the lines have too many different keys", file=path, place=f"line {number}")
        EMPTY_CELLS.require(
            number * len(names) - filled, "the lines have too few keys in common", file=path, place=f"line {number}"
        )
        excess.update({key: 1 if _is_list(value) else -1 for key, value in record.items() if value is not None})
    lists = {name for name in names if excess[name] > 0}
    if not names:
        raise DataError(
            "the file holds no JSON object",
            file=path,
            expected='lines such as {"text": "…", "label": "…"}',
            fix="check the file",
        )
    known = {name: Column(name=name, kind="labels") for name in names if name in lists}
    return Source(format="jsonl", parts={"all": partial(_batches, path, list(names), lists)}, files=[path], known=known)


def _batches(path: Path, names: list[str], lists: set[str], rejects: Rejects) -> Iterator[pa.Table]:
    held: list[tuple[int, dict[str, Any]]] = []
    most = min(BATCH_LINES, max(1, BATCH_CELLS // len(names)))
    size = 0
    for number, record, length in _records(path, rejects):
        odd = [key for key, value in record.items() if value is not None and _is_list(value) != (key in lists)]
        if odd:
            is_list = _is_list(record[odd[0]])
            rejects.add(
                "a list where most lines hold one value" if is_list else "one value where most lines hold a list",
                f"line {number}: {odd[0]!r} holds {shorten(record[odd[0]], 60)}",
                f"write it as the other lines do in {path.name}",
            )
            continue
        held.append((number, record))
        size += length
        if len(held) >= most or size > BATCH_BYTES:
            yield _table(held, names, lists)
            held, size = [], 0
    if held:
        yield _table(held, names, lists)


def _table(held: list[tuple[int, dict[str, Any]]], names: list[str], lists: set[str]) -> pa.Table:
    columns = {
        name: pa.array([_cells(record.get(name)) for _, record in held], pa.list_(pa.string()))
        if name in lists
        else pa.array([_cell(record.get(name)) for _, record in held], pa.string())
        for name in names
    }
    return pa.table({**columns, ROW: pa.array([line for line, _ in held], pa.int64())})


def _cell(value: Any) -> str | None:
    if value is None or value == "" or (isinstance(value, float) and math.isnan(value)):
        return None
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, list):
        return json.dumps(value, ensure_ascii=False)
    return value if isinstance(value, str) else repr(value)


def _cells(value: list[Any] | None) -> list[str] | None:
    return None if value is None else [cell for entry in value if (cell := _cell(entry)) is not None]


def _is_list(value: Any) -> bool:
    """A list of plain values; a conversation's turns are kept together as JSON text."""
    return isinstance(value, list) and not is_turns(value)


def _is_nested(value: Any) -> bool:
    """A mapping, or a list with anything in it that has no plain text, but the turns of a conversation."""
    if is_turns(value):
        return _is_deep(value)
    if isinstance(value, list):
        return not all(isinstance(entry, str | int | float) for entry in value)
    return isinstance(value, dict)


def _is_deep(value: Any) -> bool:
    """Whether it is nested deeper than JSON can be written again wherever it is read."""
    level = [value]
    for _ in range(MOST_DEPTH):
        mappings = [entry.values() for entry in level if isinstance(entry, dict)]
        level = [child for children in (*mappings, *(e for e in level if isinstance(e, list))) for child in children]
        if not level:
            return False
    return True


def _records(path: Path, rejects: Rejects) -> Iterator[tuple[int, dict[str, Any], int]]:
    """Line number, object and length of each good line; blank lines are passed over.

    Raises:
        DataError: a line is too long, or holds half a character, which cannot be written.
    """
    fix = f"correct these lines in {path.name}"
    for number, raw in numbered_lines(path, JSON_LINE):
        if not raw.strip():
            continue
        try:
            record = json.loads(raw.decode("utf-8-sig" if number == 1 else "utf-8"))
            if not isinstance(record, dict):
                rejects.add("not a JSON object", f"line {number}: {shorten(record, 60)}", fix)
                continue
            nested = [key for key, value in record.items() if _is_nested(value)]
            if nested:
                rejects.add(
                    "a nested value",
                    f"line {number}: {nested[0]!r} holds {shorten(record[nested[0]], 60)}",
                    f"flatten it to plain values in {path.name}",
                )
                continue
            if any(half in raw for half in HALVES):
                _require_whole_characters(record, path, number)
        except (ValueError, RecursionError) as error:
            rejects.add("not JSON", f"line {number}: {shorten(error, 100)}", fix)
            continue
        yield number, record, len(raw)


def _require_whole_characters(record: dict[str, Any], path: Path, number: int) -> None:
    for key, value in record.items():
        try:
            json.dumps([key, value], ensure_ascii=False).encode()
        except UnicodeEncodeError as error:
            raise DataError(
                "half of a character stands alone, which is no text",
                file=path,
                place=f"line {number}, column {key!r}",
                found=f"\\u{ord(error.object[error.start]):04x}",
                expected="both halves of the character, or neither",
                fix="remove it, or write the line again from its source",
            ) from None
