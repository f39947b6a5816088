"""A folder of the cache that is made once, and made anew where it is damaged."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

from tunewright.checksums import find_damage, write_checksums
from tunewright.files import sync_folder
from tunewright.notes import note


def cached_folder(place: Path, make: Callable[[Path], None]) -> Path:
    """The folder with everything that `make` writes into an empty one.

    Args:
        place: where it lies, by all that its content depends on.
    """
    if place.exists():
        damage = find_damage(place)
        if damage is None:
            return place
        note(f"{damage}; it is made anew")
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
    """Give a finished folder its name; one that another process has finished meanwhile is kept."""
    if place.exists() and find_damage(place) is not None:
        shutil.rmtree(place)
    try:
        os.rename(temporary, place)
    except OSError:
        if find_damage(place) is not None:
            raise
    sync_folder(place.parent)
