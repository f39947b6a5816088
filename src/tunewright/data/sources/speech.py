"""Recordings with what is said in them: a table with a column of files, `audio`, and usually one of their words, `text`.

The table is CSV, TSV or JSON lines; a folder is one with such a table named metadata or manifest in it. Files count from the
table's folder. They are read once and kept as numbers, with their length in seconds as a column of its own.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pyarrow as pa

from tunewright.data.audio import RATE, read_audio
from tunewright.data.columns import Column, Rejects
from tunewright.data.sources.base import ROW, Batches, Source
from tunewright.data.sources.delimited import read_delimited
from tunewright.data.sources.jsonl import read_jsonl
from tunewright.errors import DataError

AUDIO, SECONDS = "audio", "seconds"
TABLES = ("metadata", "manifest")
ENDINGS = {".csv": "csv", ".tsv": "tsv", ".jsonl": "jsonl"}
# Recordings that are in memory at once.
AT_ONCE = 128


def manifest_of(path: Path) -> Path:
    """The table of a folder, or the file itself.

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
    """The recordings of a table.

    Raises:
        DataError: there is no table, or it has no column `audio`.
    """
    table = manifest_of(path)
    kind = ENDINGS[table.suffix.lower()]
    source = read_jsonl(table, kind) if kind == "jsonl" else read_delimited(table, kind)
    names: list[str] = []
    files: list[Path] = []
    for part in source.parts.values():
        for rows in part(Rejects()):
            names = rows.column_names
            if AUDIO in names:
                files += [table.parent / name for name in rows[AUDIO].to_pylist() if name]
    if AUDIO not in names:
        raise DataError(
            "the table has no column `audio`",
            file=table,
            found=", ".join(name for name in names if name != ROW),
            expected="a column `audio` with the names of files",
            fix="rename the column",
        )
    known = {AUDIO: Column(name=AUDIO, kind="audio"), SECONDS: Column(name=SECONDS, kind="number")}
    return replace(
        source,
        format="speech",
        parts={name: partial(_heard, part, table.parent) for name, part in source.parts.items()},
        files=[table, *(file for file in dict.fromkeys(files) if file.is_file())],
        known={**source.known, **known},
    )


def _heard(batches: Batches, folder: Path, rejects: Rejects) -> Iterator[pa.Table]:
    for table in batches(rejects):
        for start in range(0, table.num_rows, AT_ONCE):
            yield _with_sound(table.slice(start, AT_ONCE), folder, rejects)


def _with_sound(table: pa.Table, folder: Path, rejects: Rejects) -> pa.Table:
    sounds: list[bytes | None] = []
    seconds: list[float] = []
    for name, row in zip(table[AUDIO].to_pylist(), table[ROW].to_pylist(), strict=True):
        try:
            if not name:
                raise ValueError("no file is named")
            if not (folder / name).is_file():
                raise ValueError("there is no such file")
            samples = read_audio(folder / name)
            sounds.append(samples.tobytes())
            seconds.append(len(samples) / RATE)
        except ValueError as error:
            rejects.add(
                "the recording cannot be read", f"row {row}: {name}: {error}", "restore these files, or remove them"
            )
            sounds.append(None)
            seconds.append(0.0)
    keep = np.array([sound is not None for sound in sounds])
    place = table.column_names.index(AUDIO)
    heard = table.set_column(place, AUDIO, pa.array(sounds, pa.binary()))
    if SECONDS in heard.column_names:
        heard = heard.drop_columns([SECONDS])
    return heard.append_column(SECONDS, pa.array(seconds, pa.float64())).filter(pa.array(keep))
