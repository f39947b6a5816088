"""Files that are either whole or absent: atomic writes, hashes, the cache folder."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from pathlib import Path
from typing import Any


def cache_dir() -> Path:
    """Where prepared data is kept between runs: $TUNEWRIGHT_CACHE, else ~/.cache/tunewright."""
    chosen = os.environ.get("TUNEWRIGHT_CACHE")
    return Path(chosen).expanduser() if chosen else Path.home() / ".cache" / "tunewright"


def cache_file(kind: str, known: object) -> Path:
    """Where something measured is kept, by all that it depends on: a JSON file of the cache."""
    return cache_dir() / kind / f"{hashlib.sha256(repr(known).encode()).hexdigest()[:32]}.json"


def sha256_file(path: Path) -> str:
    """The SHA-256 of a file's bytes, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def sync_folder(folder: Path) -> None:
    """Make renames inside `folder` survive a power cut."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def sync_file(path: Path) -> None:
    """Make the bytes of a file that was written by somebody else survive a power cut."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def write_atomic(path: Path, content: bytes | str) -> None:
    """Write a file so that a reader, or a crash at any moment, sees the old content or the new, never a part."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with temporary.open("wb") as file:
            file.write(content.encode() if isinstance(content, str) else content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    sync_folder(path.parent)


def write_json(path: Path, value: Any) -> None:
    """Write JSON atomically, indented for people; NaN is refused because JSON has none."""
    write_atomic(path, json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def remove_folder(folder: Path) -> None:
    """Delete a folder so that a crash half way never leaves a part of it under its own name."""
    doomed = folder.with_name(f".trash-{folder.name}-{os.getpid()}")
    folder.rename(doomed)
    shutil.rmtree(doomed, ignore_errors=True)
