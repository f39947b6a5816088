"""Create folders of the cache once, and recreate damaged ones."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

from tunewright.checksums import find_damage, write_checksums
from tunewright.files import sync_folder
from tunewright.notes import note


def cached_folder(place: Path, make: Callable[[Path], None]) -> Path:
    """Return a cached folder; create it with `make` if it is missing or damaged.

    Args:
        place: its path, which contains everything that its content depends on.
        make: writes the content into an empty folder.
    """
    if place.exists():
        damage = find_damage(place)
        if damage is None:
            return place
        note(f"{damage}; it is recreated")
    temporary = place.with_name(f".tmp-{place.name}-{os.getpid()}")
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir(parents=True)
    try:
        make(temporary)
        write_checksums(temporary)
        put_in_place(temporary, place)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return place


def put_in_place(temporary: Path, place: Path) -> None:
    """Rename a finished folder; one that another process has finished in the meantime is kept."""
    if place.exists() and find_damage(place) is not None:
        shutil.rmtree(place)
    try:
        os.rename(temporary, place)
    except OSError:
        if find_damage(place) is not None:
            raise
    sync_folder(place.parent)
