"""Find, redact and restore personal data: `data check --pii`, `data redact`, `data restore`."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa

from tunewright.data.checks.finding import Finding
from tunewright.data.prepared import Prepared
from tunewright.data.source import ROW
from tunewright.data.text.pii import NAME, Finder, Personal, Redaction, find_personal
from tunewright.errors import DataError
from tunewright.files import open_regular, write_atomic
from tunewright.runs.folder import read_json

SHOWN = 3
WRITTEN = (".csv", ".tsv", ".jsonl", ".txt")


def check_personal(prepared: Prepared, besides: Finder | None = None) -> list[Finding]:
    """Report personal data in the text columns, by kind and column, with masked values.

    Args:
        besides: finds more than the rules.
    """
    found: dict[tuple[str, str], list[tuple[str, int, Personal]]] = {}
    rows: dict[tuple[str, str], set[tuple[str, int]]] = {}
    read = 0
    for split in prepared.manifest.splits:
        table = prepared.table(split)
        read += table.num_rows
        for column in table.column_names:
            if not (pa.types.is_string(table[column].type) or pa.types.is_large_string(table[column].type)):
                continue
            for row, value in zip(table[ROW].to_pylist(), table[column].to_pylist()):
                for piece in find_personal(value or "", besides=besides):
                    found.setdefault((piece.kind, column), []).append((split, row, piece))
                    rows.setdefault((piece.kind, column), set()).add((split, row))
    findings = [
        Finding(
            code="personal data",
            severity="info" if kind == NAME else "warning",
            title=f"{kind} in column {column!r}: {len(pieces):,} in {len(rows[kind, column]):,} of {read:,} rows",
            count=len(rows[kind, column]),
            examples=[f"{split} row {row}: {piece.masked}" for split, row, piece in pieces[:SHOWN]],
            fix="tunewright data redact FILE --out CLEAN --map MAP.json",
        )
        for (kind, column), pieces in sorted(found.items(), key=lambda entry: -len(entry[1]))
    ]
    if not findings:
        findings = [
            Finding(code="personal data", severity="info", title=f"no personal data was found in {read:,} rows")
        ]
    return findings


def redact_file(
    source: Path, out: Path, mapped: Path, *, names: bool = True, besides: Finder | None = None
) -> dict[str, int]:
    """Write a text file with a token in place of each piece of personal data, and a map of the tokens to another file.

    Returns:
        The number of distinct values of each kind.

    Raises:
        DataError: a file already exists, or the format of the source is not supported.
    """
    redaction = Redaction({})
    text = _rewritten(source, lambda value: redaction.redact(value, names=names, besides=besides))
    _require_free(out, mapped)
    # Only its owner may read the map: it reverses the redaction.
    os.close(os.open(mapped, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))
    mapped.write_text(json.dumps(redaction.tokens, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")
    write_atomic(out, text)
    return redaction.counts


def restore_file(source: Path, out: Path, mapped: Path) -> None:
    """Write the original text of a redacted file.

    Raises:
        DataError: the file already exists, or its format is not supported.
        ArtifactError: the map is missing or damaged.
    """
    redaction = Redaction(read_json(mapped, "a map of `data redact`"))
    text = _rewritten(source, redaction.restore)
    _require_free(out)
    write_atomic(out, text)


def _rewritten(source: Path, change: Callable[[str], str]) -> str:
    if source.suffix.lower() not in WRITTEN:
        raise DataError(
            "only text files can be redacted",
            file=source,
            found=source.suffix or "no extension",
            expected="csv, tsv, jsonl or txt",
            fix="convert the file to one of these first",
        )
    try:
        with open_regular(source) as file:
            text = file.read().decode("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError("the file cannot be read as UTF-8", file=source, found=error, fix="check the file") from error
    if source.suffix.lower() != ".jsonl":
        return change(text)
    lines: list[str] = []
    for number, line in enumerate(text.splitlines(), start=1):
        try:
            value = json.loads(line) if line.strip() else None
        except ValueError as error:
            raise DataError("the line is not JSON", file=source, place=f"line {number}", found=error) from error
        lines.append(line if value is None else json.dumps(_within(value, change), ensure_ascii=False))
    return "".join(f"{line}\n" for line in lines)


def _within(value: Any, change: Callable[[str], str]) -> Any:
    """Apply `change` to each text in a JSON value; keys stay."""
    if isinstance(value, str):
        return change(value)
    if isinstance(value, list):
        return [_within(entry, change) for entry in value]
    return {key: _within(entry, change) for key, entry in value.items()} if isinstance(value, dict) else value


def _require_free(*files: Path) -> None:
    for file in files:
        if file.exists():
            raise DataError("this file already exists", file=file, fix="choose another name")
