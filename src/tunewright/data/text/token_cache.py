"""The tokens of many texts in files that are mapped into memory: however many there are, no more of them is in memory than is read.

A set is a folder: `tokens.bin` (two or four bytes a token, all texts one behind the other), `starts.bin` (where each text
starts, and the end), `rows.bin` (each text's row in the source), and `index.json` with their sizes and hashes, written last:
where it stands, the set is whole. A file that is not what the index says is written again.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tunewright.checksums import file_damage, file_facts
from tunewright.files import cache_dir, open_record, sweep, sync_file, sync_folder, write_record
from tunewright.notes import note

NAMES = ("tokens", "starts", "rows")


@dataclass(frozen=True)
class TokenFile:
    """A set, mapped: tokens [tokens], starts [texts + 1] int64, rows [texts] int64."""

    tokens: np.ndarray
    starts: np.ndarray
    rows: np.ndarray


def token_file(key: str, parts: Iterable[tuple[list[np.ndarray], np.ndarray]], *, pieces: int) -> TokenFile:
    """Return the set of that key, written where it is not there yet, or not whole.

    Args:
        parts: texts with their row numbers, a few at a time; texts without tokens are skipped.
        pieces: how many tokens there are to choose from.
    """
    folder = cache_dir() / "tokens" / key
    if (found := _open(folder)) is not None:
        return found
    temporary = folder.parent / f".tmp-{key}-{os.getpid()}"
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir(parents=True)
    sweep(folder.parent)
    try:
        _write(temporary, parts, "uint16" if pieces <= 2**16 else "uint32")
        shutil.rmtree(folder, ignore_errors=True)
        os.rename(temporary, folder)
        sync_folder(folder.parent)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    written = _open(folder)
    assert written is not None
    return written


def _write(folder: Path, parts: Iterable[tuple[list[np.ndarray], np.ndarray]], dtype: str) -> None:
    total = 0
    with (
        (folder / "tokens.bin").open("wb") as tokens,
        (folder / "starts.bin").open("wb") as starts,
        (folder / "rows.bin").open("wb") as rows,
    ):
        starts.write(np.zeros(1, np.int64).tobytes())
        for texts, numbers in parts:
            lengths = np.array([len(text) for text in texts], np.int64)
            filled = lengths > 0
            if not filled.any():
                continue
            tokens.write(np.concatenate(texts).astype(dtype).tobytes())
            ends = total + np.cumsum(lengths[filled])
            total = int(ends[-1])
            starts.write(ends.tobytes())
            rows.write(numbers[filled].astype(np.int64).tobytes())
    facts: dict[str, Any] = {"dtype": dtype, "tokens": total, "files": {}}
    for name in NAMES:
        path = folder / f"{name}.bin"
        sync_file(path)
        facts["files"][name] = file_facts(path)
    write_record(folder / "index.json", facts)


def _open(folder: Path) -> TokenFile | None:
    """Open the set in a folder; None where it is not there, or damaged, which is said."""
    if not folder.exists():
        return None
    try:
        facts = open_record((folder / "index.json").read_bytes())
        for name in NAMES:
            if (damage := file_damage(folder / f"{name}.bin", facts["files"][name])) is not None:
                note(f"{damage}; the tokens are written again")
                return None
        if not facts["tokens"]:  # nothing cannot be mapped
            return TokenFile(*(np.zeros(count, np.int64) for count in (0, 1, 0)))
        kinds = (facts["dtype"], np.int64, np.int64)
        return TokenFile(*(np.memmap(folder / f"{name}.bin", kind, "r") for name, kind in zip(NAMES, kinds)))
    except (OSError, ValueError, KeyError, TypeError) as error:
        note(f"{folder / 'index.json'}: the file is missing or damaged ({error}); the tokens are written again")
        return None
