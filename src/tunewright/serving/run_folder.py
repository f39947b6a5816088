"""Read a run's folder for `ui`: only files inside of it, regardless of its run.json."""

from __future__ import annotations

import stat
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path

from tunewright.errors import ArtifactError
from tunewright.limits import SHOWN_FILE, SHOWN_STAGES, Limit
from tunewright.runs.run_files import RunListing, read_listing


@dataclass(frozen=True)
class RunFolder:
    """Read a folder with a run.json; links to it or in it are not followed."""

    path: Path

    def file(self, *parts: str, most: Limit) -> Path | None:
        """Return a file by the names of its folders and its own; None if it does not exist.

        Raises:
            ArtifactError: it lies behind a link, is no file (a device or a pipe never ends), or is too large.
        """
        for place in accumulate(parts, lambda folder, name: folder / name, initial=self.path):
            if place.is_symlink():
                raise ArtifactError(
                    "a link is not followed", file=place, expected="a file or folder of the run", fix="copy it there"
                )
        path = self.path.joinpath(*parts)
        try:
            found = path.lstat()
        except (FileNotFoundError, NotADirectoryError):
            return None
        if not stat.S_ISREG(found.st_mode):
            raise ArtifactError("it is not a file", file=path, expected="a file of the run", fix="remove it")
        most.require(found.st_size, "the file is too large to be shown", error=ArtifactError, file=path)
        return path

    def changed(self, *parts: str) -> float:
        """Return when a file was changed; 0 if it does not exist."""
        path = self.path.joinpath(*parts)
        return path.lstat().st_mtime if path.exists() else 0

    @property
    def record(self) -> RunListing:
        """Read run.json.

        Raises:
            ArtifactError: it is missing or damaged.
        """
        return read_listing(self.file("run.json", most=SHOWN_FILE) or self.path / "run.json")

    @property
    def stages(self) -> list[str]:
        """Return the stages of run.json, each the name of a folder in this one.

        Raises:
            ArtifactError: one names another place, or there are too many.
        """
        listed = self.record.stages
        SHOWN_STAGES.require(
            len(listed), "the run has too many stages", error=ArtifactError, file=self.path / "run.json"
        )
        names = list(dict.fromkeys(name for name in listed if name.strip()))
        if strange := [name for name in names if Path(name).name != name or name == ".." or "\0" in name]:
            raise ArtifactError(
                "a stage refers to a folder outside of its run",
                file=self.path / "run.json",
                found=strange[0],
                expected="names such as pretrain",
                fix="run the recipe again",
            )
        return names
