"""JSON lines: one object a line; numbers stay numbers, everything else is text."""

from __future__ import annotations

import gzip
import json
import math
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa

from tunewright.data.columns import Rejects
from tunewright.data.sources.base import ROW, Source
from tunewright.errors import DataError, shorten

BATCH_LINES = 16_384


def read_jsonl(path: Path, format: str) -> Source:
    """A JSON-lines file, gzipped or not.

    Raises:
        DataError: there is not one good object in it.
    """
    names: dict[str, None] = {}
    for _, record in _records(path, Rejects()):
        names.update(dict.fromkeys(record))
    if not names:
        raise DataError(
            "the file holds no JSON object",
            file=path,
            expected='lines such as {"text": "…", "label": "…"}',
            fix="check the file",
        )
    return Source(format="jsonl", parts={"all": partial(_batches, path, list(names))}, files=[path])


def _batches(path: Path, names: list[str], rejects: Rejects) -> Iterator[pa.Table]:
    held: list[tuple[int, dict[str, Any]]] = []
    for entry in _records(path, rejects):
        held.append(entry)
        if len(held) == BATCH_LINES:
            yield _table(held, names)
            held = []
    if held:
        yield _table(held, names)


def _table(held: list[tuple[int, dict[str, Any]]], names: list[str]) -> pa.Table:
    columns = {name: pa.array([_cell(record.get(name)) for _, record in held], pa.string()) for name in names}
    return pa.table({**columns, ROW: pa.array([line for line, _ in held], pa.int64())})


def _cell(value: Any) -> str | None:
    if value is None or value == "" or (isinstance(value, float) and math.isnan(value)):
        return None
    if isinstance(value, bool):
        return "true" if value else "false"
    return value if isinstance(value, str) else repr(value)


def _records(path: Path, rejects: Rejects) -> Iterator[tuple[int, dict[str, Any]]]:
    """Line number and object of each good line; blank lines are passed over."""
    fix = f"correct these lines in {path.name}"
    try:
        with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as file:
            for number, raw in enumerate(file, start=1):
                if not raw.strip():
                    continue
                try:
                    record = json.loads(raw.decode("utf-8-sig" if number == 1 else "utf-8"))
                except (ValueError, RecursionError) as error:
                    rejects.add("not JSON", f"line {number}: {shorten(error, 100)}", fix)
                    continue
                if not isinstance(record, dict):
                    rejects.add("not a JSON object", f"line {number}: {shorten(record, 60)}", fix)
                    continue
                nested = [key for key, value in record.items() if isinstance(value, dict | list)]
                if nested:
                    rejects.add(
                        "a nested value",
                        f"line {number}: {nested[0]!r} holds {shorten(record[nested[0]], 60)}",
                        f"flatten it to plain values in {path.name}",
                    )
                    continue
                yield number, record
    except (OSError, EOFError) as error:
        raise DataError(
            f"the file cannot be read to its end: {error}",
            file=path,
            expected="a whole, readable file",
            fix="restore it from a copy",
        ) from error
