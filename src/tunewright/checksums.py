"""Write and verify checksums of a folder's files.

`checksums.json` has the size and SHA-256 of each file, and a hash of its own content, which identifies the whole folder.
A file is hashed once per process, however often it is opened.
"""

from __future__ import annotations

import os
import time
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tunewright.files import content_hash, open_record, sha256_file, write_record

CHECKSUMS = "checksums.json"
# A file that changed fewer seconds ago may change again with the same mtime.
JUST_NOW = 0.1


@dataclass(frozen=True, kw_only=True)
class Damage:
    """Describe a file that differs from what was written."""

    file: Path
    problem: str
    found: str | None = None
    expected: str | None = None

    def __str__(self) -> str:
        return f"{self.file}: {self.problem}"


def write_checksums(folder: Path, *, besides: Collection[str] = ()) -> None:
    """Write the checksums of all files of a folder.

    Args:
        besides: names of files that may change later.
    """
    apart = {CHECKSUMS, *besides}
    names = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
    write_record(
        folder / CHECKSUMS, {"files": {name: file_facts(folder / name) for name in names if name not in apart}}
    )


def find_damage(folder: Path, *, besides: Collection[str] = ()) -> Damage | None:
    """Return the first file that differs from its checksum; None if there is none. A folder without checksums is damaged.

    Args:
        besides: endings of files that are not checked.
    """
    path = folder / CHECKSUMS
    try:
        files = open_record(path.read_bytes())["files"]
        wanted = {name: facts for name, facts in files.items() if not name.endswith(tuple(besides))}
        found = (file_damage(folder / name, facts) for name, facts in wanted.items())
        return next((damage for damage in found if damage is not None), None)
    except FileNotFoundError:
        return Damage(file=path, problem="the file is missing")
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        return Damage(file=path, problem=f"the file is damaged ({error})")


def folder_hash(folder: Path) -> str | None:
    """Return one hash for all files with checksums; None for a folder without checksums, or with damaged ones."""
    try:
        return content_hash(open_record((folder / CHECKSUMS).read_bytes()))
    except (OSError, ValueError):
        return None


def file_facts(path: Path) -> dict[str, Any]:
    """Return size and SHA-256 of a file."""
    return {"bytes": path.stat().st_size, "sha256": known_sha256(path)}


def file_damage(path: Path, facts: dict[str, Any]) -> Damage | None:
    """Compare a file with the result of `file_facts`; None if it is unchanged."""
    if not path.is_file():
        return Damage(file=path, problem="the file is missing")
    if (size := path.stat().st_size) != facts["bytes"]:
        found, expected = f"{size:,} bytes", f"{facts['bytes']:,} bytes"
        return Damage(file=path, problem="the file has another size than was written", found=found, expected=expected)
    if (found := known_sha256(path)) != facts["sha256"]:
        found, expected = f"SHA-256 {found}", f"SHA-256 {facts['sha256']}"
        return Damage(file=path, problem="the file is not what was written", found=found, expected=expected)
    return None


_hashes: dict[tuple[int, ...], str] = {}


def known_sha256(path: Path) -> str:
    """Return the SHA-256 of a file, hashed once per process unless it has changed."""
    facts = os.stat(path)
    key = (facts.st_dev, facts.st_ino, facts.st_size, facts.st_mtime_ns, facts.st_ctime_ns)
    if (known := _hashes.get(key)) is not None:
        return known
    found = sha256_file(path)
    if time.time() - facts.st_mtime > JUST_NOW:
        _hashes[key] = found
    return found
