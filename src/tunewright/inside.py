"""Refuse files outside of a stranger's folder.

What is read from a folder goes into a model, a report or a copy. So a path that leads out of it, by `..`, as an absolute
path or through a link, is refused. The operator of the machine can trust more folders; a recipe cannot.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

from tunewright.errors import DataError

# Folders, separated as in PATH, whose files any data and any model may refer to.
VARIABLE = "TUNEWRIGHT_TRUSTED_FOLDERS"


class Roots:
    """Check paths against allowed folders: the given ones, and those that the environment trusts."""

    def __init__(self, *folders: Path) -> None:
        trusted = [part for part in os.environ.get(VARIABLE, "").split(os.pathsep) if part]
        self._folders = [os.path.realpath(folder) for folder in (*folders, *trusted)]
        self._parents: dict[Path, str] = {}

    def outside(self, file: Path) -> str | None:
        """Return the real path of a file if that is outside; None if it is inside, or cannot exist."""
        if "\0" in str(file):
            return None
        if file.name == ".." or os.path.islink(file):
            real = os.path.realpath(file)
        else:
            if file.parent not in self._parents:
                self._parents[file.parent] = os.path.realpath(file.parent)
            real = os.path.join(self._parents[file.parent], file.name)
        return None if any(Path(real).is_relative_to(folder) for folder in self._folders) else real


def require_inside(files: Iterable[tuple[Path, str | None]], folder: Path, source: Path) -> None:
    """Check that data files are in their folder.

    Args:
        files: each with its place in the source, such as "row 3"; None: the file is itself part of the source.
        folder: the allowed folder.
        source: the file that names them, for the error.

    Raises:
        DataError: a file is elsewhere.
    """
    roots = Roots(folder)
    for file, place in files:
        if (real := roots.outside(file)) is not None:
            raise DataError(
                "the data names a file outside its folder, which is not read"
                if place
                else "a file of the data is a link out of its folder, which is not followed",
                file=source if place else file,
                place=place,
                found=real,
                expected=f"files in {folder}",
                fix=f"copy them there; or, if you trust the data, list their folder in {VARIABLE}",
            )
