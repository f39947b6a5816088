"""Recordings with what is said in them: a table with a column of files, `audio`, and usually one of their words, `text`.

The table is CSV, TSV or JSON lines; a folder is one with such a table named metadata or manifest in it. Files count from the
table's folder, and lie in it. They are read once and kept as numbers, with their length in seconds as a column of its own.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path

import pyarrow as pa

from tunewright.data.audio.decode import RATE, read_audio
from tunewright.data.manifest import Column, Rejects
from tunewright.data.source import ROW, Batches, Source
from tunewright.data.sources.delimited import read_delimited
from tunewright.data.sources.jsonl import read_jsonl
from tunewright.errors import DataError
from tunewright.inside import require_inside

AUDIO, SECONDS = "audio", "seconds"
# Of int16.
SAMPLE_BYTES = 2
TABLES = ("metadata", "manifest")
ENDINGS = {".csv": "csv", ".tsv": "tsv", ".jsonl": "jsonl"}
# Recordings that are in memory at once, at most, and of long ones so many bytes.
AT_ONCE, BYTES_AT_ONCE = 128, 256 * 2**20


def manifest_of(path: Path) -> Path:
    """Return the table of a folder, or the file itself.

    Raises:
        DataError: there is none, or it is of another kind.
    """
    if path.is_dir():
        found = [
            path / f"{name}{ending}" for name in TABLES for ending in ENDINGS if (path / f"{name}{ending}").exists()
        ]
        if len(found) == 1:
            return found[0]
    elif path.suffix.lower() in ENDINGS:
        return path
    raise DataError(
        "there is no table of recordings",
        file=path,
        found=path.suffix
        if path.is_file()
        else ", ".join(sorted(entry.name for entry in path.iterdir())[:5]) or "nothing",
        expected="a file .csv, .tsv or .jsonl with a column `audio`, or a folder with one named metadata",
        fix="write one: audio,text",
    )


def read_speech(path: Path) -> Source:
    """Read the recordings of a table.

    Raises:
        DataError: there is no table, or it has no column `audio`.
    """
    table = manifest_of(path)
    kind = ENDINGS[table.suffix.lower()]
    source = read_jsonl(table, kind) if kind == "jsonl" else read_delimited(table, kind)
    names: list[str] = []
    files: list[tuple[Path, str]] = []
    for part in source.parts.values():
        for rows in part(Rejects()):
            names = [name for name in rows.column_names if name != AUDIO or pa.types.is_string(rows[AUDIO].type)]
            if AUDIO in names:
                named = zip(rows[AUDIO].to_pylist(), rows[ROW].to_pylist(), strict=True)
                files += [(table.parent / name, f"row {row}") for name, row in named if name]
    if AUDIO not in names:
        raise DataError(
            "the table has no column `audio`",
            file=table,
            found=", ".join(name for name in names if name != ROW),
            expected="a column `audio` with the names of files",
            fix="rename the column",
        )
    require_inside(files, table.parent, table)
    known = {AUDIO: Column(name=AUDIO, kind="audio"), SECONDS: Column(name=SECONDS, kind="number")}
    return replace(
        source,
        format="speech",
        parts={name: partial(_with_recordings, part, table.parent) for name, part in source.parts.items()},
        files=[table, *(file for file in dict.fromkeys(file for file, _ in files) if _is_file(file))],
        known={**source.known, **known},
    )


def _with_recordings(batches: Batches, folder: Path, rejects: Rejects) -> Iterator[pa.Table]:
    for table in batches(rejects):
        start = 0
        sounds: list[bytes | None] = []
        for name, row in zip(table[AUDIO].to_pylist(), table[ROW].to_pylist(), strict=True):
            sounds.append(_sound(name, row, folder, rejects))
            if len(sounds) == AT_ONCE or sum(len(sound or b"") for sound in sounds) > BYTES_AT_ONCE:
                yield _with_sound(table.slice(start, len(sounds)), sounds)
                start, sounds = start + len(sounds), []
        if sounds:
            yield _with_sound(table.slice(start), sounds)


def _sound(name: str | None, row: int, folder: Path, rejects: Rejects) -> bytes | None:
    """Return the samples of a row's recording; None where it cannot be read, which is noted in `rejects`."""
    try:
        if not name:
            raise ValueError("no file is named")
        if not _is_file(folder / name):
            raise ValueError("there is no such file")
        return read_audio(folder / name).tobytes()
    except ValueError as error:
        rejects.add(
            "the recording cannot be read", f"row {row}: {name}: {error}", "restore these files, or remove them"
        )
        return None


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except OSError:  # such as a name that is too long
        return False


def _with_sound(table: pa.Table, sounds: list[bytes | None]) -> pa.Table:
    keep = [sound is not None for sound in sounds]
    seconds = [len(sound or b"") / SAMPLE_BYTES / RATE for sound in sounds]
    place = table.column_names.index(AUDIO)
    decoded = table.set_column(place, AUDIO, pa.array(sounds, pa.binary()))
    if SECONDS in decoded.column_names:
        decoded = decoded.drop_columns([SECONDS])
    return decoded.append_column(SECONDS, pa.array(seconds, pa.float64())).filter(pa.array(keep))
