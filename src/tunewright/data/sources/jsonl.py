"""JSON lines: one object a line; lists and records keep their structure, everything else is text."""

from __future__ import annotations

import json
import math
from collections import Counter, defaultdict
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa

from tunewright.data.lines import BATCH_BYTES, numbered_lines
from tunewright.data.manifest import Column, Rejects
from tunewright.data.source import ROW, Source
from tunewright.data.structure import CommonForm, Form, arrow_type, describe, fit, form_of, is_structured
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
    """Read a JSON-lines file, gzipped or not.

    Raises:
        DataError: there is not one good object in it.
    """
    names: dict[str, None] = {}
    excess: Counter[str] = Counter()  # structured values less plain ones
    common: defaultdict[str, CommonForm] = defaultdict(CommonForm)
    filled = 0
    for number, record, _ in _records(path, Rejects()):
        names.update(dict.fromkeys(record))
        filled += len(record)
        COLUMNS.require(len(names), "the lines have too many different keys", file=path, place=f"line {number}")
        EMPTY_CELLS.require(
            number * len(names) - filled, "the lines have too few keys in common", file=path, place=f"line {number}"
        )
        for key, value in record.items():
            if value is not None:
                excess[key] += 1 if (structured := _is_structured(value)) else -1
                if structured:
                    common[key].add(form_of(value))
    if not names:
        raise DataError(
            "the file holds no JSON object",
            file=path,
            expected='lines such as {"text": "…", "label": "…"}',
            fix="check the file",
        )
    forms = {name: common[name].form for name in names if excess[name] > 0}
    known = {name: Column(name=name, kind="structure", form=form) for name, form in forms.items()}
    return Source(format="jsonl", parts={"all": partial(_batches, path, list(names), forms)}, files=[path], known=known)


def _batches(path: Path, names: list[str], forms: dict[str, Form], rejects: Rejects) -> Iterator[pa.Table]:
    held: list[tuple[int, dict[str, Any]]] = []
    most = min(BATCH_LINES, max(1, BATCH_CELLS // len(names)))
    size = 0
    for number, record, length in _records(path, rejects):
        try:
            cells = {key: _cell(key, value, forms) for key, value in record.items() if value is not None}
        except Misfit as error:
            rejects.add(error.reason, f"line {number}: {error}", f"write it as the other lines do in {path.name}")
            continue
        held.append((number, cells))
        size += length
        if len(held) >= most or size > BATCH_BYTES:
            yield _table(held, names, forms)
            held, size = [], 0
    if held:
        yield _table(held, names, forms)


def _table(held: list[tuple[int, dict[str, Any]]], names: list[str], forms: dict[str, Form]) -> pa.Table:
    columns = {
        name: pa.array(
            [record.get(name) for _, record in held], arrow_type(forms[name]) if name in forms else pa.string()
        )
        for name in names
    }
    return pa.table({**columns, ROW: pa.array([line for line, _ in held], pa.int64())})


class Misfit(ValueError):
    """A value that is not of its column's form."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(detail)
        self.reason = reason


def _cell(key: str, value: object, forms: dict[str, Form]) -> object:
    """Return a value as its column stores it.

    Raises:
        Misfit: most lines hold something else.
    """
    if _is_structured(value) != (key in forms):
        noun = "a list" if isinstance(value, list) else "a record"
        usual = describe(forms.get(key))
        reason = (
            f"one value where most lines hold {usual}" if key in forms else f"{noun} where most lines hold one value"
        )
        raise Misfit(reason, f"{key!r} holds {shorten(value, 60)}")
    if key not in forms:
        return _plain(value)
    try:
        return fit(value, forms[key])
    except ValueError as error:
        raise Misfit(f"the structure of {key!r} is not that of most lines", f"{key!r}: {error}") from None


def _plain(value: object) -> str | None:
    if value == "" or (isinstance(value, float) and math.isnan(value)):
        return None
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, list):
        return json.dumps(value, ensure_ascii=False)
    return value if isinstance(value, str) else repr(value)


def _is_structured(value: object) -> bool:
    """Return a list or a record; a conversation's turns are kept together as JSON text."""
    return is_structured(value) and not is_turns(value)


def _problem(value: object) -> str | None:
    """Why a value cannot be stored; None: it can."""
    if is_turns(value):
        return f"it is nested deeper than {MOST_DEPTH} levels" if _is_deep(value) else None
    try:
        if is_structured(value):
            form_of(value)
    except ValueError as error:
        return str(error)
    return None


def _is_deep(value: object) -> bool:
    """Return whether it is nested deeper than JSON can be written again wherever it is read."""
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
            bad = next(((key, why) for key, value in record.items() if (why := _problem(value)) is not None), None)
            if bad is not None:
                key, why = bad
                rejects.add("a list or record that cannot be stored", f"line {number}: {key!r}: {why}", fix)
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
                "half of a surrogate pair stands alone, which is not text",
                file=path,
                place=f"line {number}, column {key!r}",
                found=f"\\u{ord(error.object[error.start]):04x}",
                expected="both halves of the character, or neither",
                fix="remove it, or write the line again from its source",
            ) from None
