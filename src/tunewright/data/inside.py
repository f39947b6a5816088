"""Which files data may consist of: those that really lie in its own folder, whatever a table or a link says.

Data may come from a stranger, and what is read from it goes into a model and a report. So a name that leads out of the
folder, by `..`, as an absolute path or through a link, is refused. The person who runs the machine can name more folders.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

from tunewright.errors import DataError

# Folders, separated as in PATH, whose files any data may name and link to.
VARIABLE = "TUNEWRIGHT_DATA_FOLDERS"


def require_inside(files: Iterable[tuple[Path, str | None]], folder: Path, source: Path) -> None:
    """See where files really lie.

    Args:
        files: each with its place in the source, such as "row 3"; None: the file itself is what the source consists of.
        folder: where they may lie.
        source: what names them, for the error.

    Raises:
        DataError: one lies elsewhere.
    """
    listed = [part for part in os.environ.get(VARIABLE, "").split(os.pathsep) if part]
    allowed = [os.path.realpath(place) for place in (folder, *listed)]
    parents: dict[Path, str] = {}
    for file, place in files:
        if "\0" in str(file):
            continue  # there is no such file
        if file.name == ".." or os.path.islink(file):
            real = os.path.realpath(file)
        else:
            if file.parent not in parents:
                parents[file.parent] = os.path.realpath(file.parent)
            real = os.path.join(parents[file.parent], file.name)
        if not any(Path(real).is_relative_to(root) for root in allowed):
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
