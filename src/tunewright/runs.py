"""The run folder: where a run's files are, whose run it is, and that nobody else is writing to it.

    runs/<name>/   recipe.yaml  recipe.resolved.yaml  environment.json  run.json  log.txt  report.html
                   <stage>/ metrics.jsonl  summary.json  predictions.parquet  checkpoints/  model/
                   seeds/<k>/<stage>/ …        the same for the other seeds
                   <stage>/controls/<name>/ …  the trainings that a stage is compared with

A run is known by its identity: the hash of the resolved recipe and of the data. The same recipe on the same data goes
on where it was killed; once it is complete, or when anything differs, the next run gets a folder of its own.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tunewright.errors import ArtifactError
from tunewright.files import write_atomic, write_json


@dataclass(frozen=True)
class Run:
    """One run folder."""

    folder: Path

    @property
    def record(self) -> dict[str, Any]:
        """run.json: identity, stages in order, complete or not.

        Raises:
            ArtifactError: it is missing or damaged.
        """
        return read_json(self.folder / "run.json", "a run folder of Tunewright")

    def stage_folder(self, stage: str, *, replica: int = 0) -> Path:
        """The folder of a stage, of the run itself or of its repetition with another seed."""
        return (self.folder / "seeds" / str(replica) if replica else self.folder) / stage

    def mark_complete(self) -> None:
        write_json(self.folder / "run.json", {**self.record, "complete": True})

    def log(self, line: str) -> None:
        """Append a line to log.txt."""
        with (self.folder / "log.txt").open("a", encoding="utf-8") as file:
            file.write(line + "\n")


def identity(resolved: dict[str, Any], fingerprints: list[str]) -> str:
    """What makes two runs the same run: the resolved recipe and the content of its data."""
    content = json.dumps([resolved, fingerprints], sort_keys=True, ensure_ascii=False)
    return hashlib.sha256(content.encode()).hexdigest()


@contextmanager
def open_run(
    root: Path, name: str, identity: str, files: dict[str, str], record: dict[str, Any]
) -> Generator[tuple[Run, bool]]:
    """The unfinished run of this identity, or a new folder; locked against other processes while it is open.

    Args:
        root: the folder of all runs.
        files: what a new folder gets at once, by file name.
        record: what goes into its run.json besides the identity.

    Yields:
        the run, and whether it goes on from before.
    """
    root.mkdir(parents=True, exist_ok=True)
    # A killed run leaves its folder, a finished one too: so each candidate name is tried in turn.
    for number in range(1, 1_000_000):
        folder = root / (name if number == 1 else f"{name}-{number}")
        exists = (folder / "run.json").exists()
        if folder.exists() and not exists and any(folder.iterdir()) and not (folder / ".lock").exists():
            continue  # somebody else's folder
        if exists:
            known = json.loads((folder / "run.json").read_bytes())
            if known.get("identity") != identity or known.get("complete"):
                continue
        folder.mkdir(exist_ok=True)
        with (folder / ".lock").open("a") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                continue  # another process is at work in it
            if exists and json.loads((folder / "run.json").read_bytes()).get("complete"):
                continue
            if not exists:
                for file, content in files.items():
                    write_atomic(folder / file, content)
                # run.json is written last: it makes the folder a run.
                write_json(folder / "run.json", {"identity": identity, "complete": False, **record})
            yield Run(folder), exists
            return


def read_json(path: Path, what: str) -> dict[str, Any]:
    """A JSON object that Tunewright wrote.

    Raises:
        ArtifactError: the file is missing, or damaged.
    """
    try:
        value = json.loads(path.read_bytes())
    except FileNotFoundError:
        raise ArtifactError(
            f"{path.name} is missing", file=path.parent, expected=what, fix="check the path; `tunewright run` makes one"
        ) from None
    except (OSError, ValueError, RecursionError) as error:
        raise ArtifactError(
            f"the file cannot be read: {error}",
            file=path,
            expected=f"the JSON of {what}",
            fix="restore it from a copy, or run the recipe again",
        ) from error
    if not isinstance(value, dict):
        raise ArtifactError(
            "the file holds no JSON object", file=path, found=value, expected=what, fix="run the recipe again"
        )
    return value


class MetricsLog:
    """metrics.jsonl: one JSON object a line, appended; on resume, what came after the checkpoint is taken back."""

    def __init__(self, path: Path, *, step: int) -> None:
        self.path = path
        path.parent.mkdir(parents=True, exist_ok=True)
        kept = [line for line in read_metrics(path) if line["step"] <= step] if path.exists() else []
        write_atomic(path, "".join(_line(entry) for entry in kept))
        self._file = path.open("a", encoding="utf-8")

    def append(self, entry: dict[str, Any]) -> None:
        self._file.write(_line(entry))
        if entry["kind"] == "epoch":
            self._file.flush()
            os.fsync(self._file.fileno())

    def close(self) -> None:
        self._file.close()


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """The lines of a metrics.jsonl; a last line that was cut off by a kill is passed over, it will be written again."""
    entries: list[dict[str, Any]] = []
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
        try:
            entry = json.loads(line)
        except (ValueError, RecursionError):
            continue
        if isinstance(entry, dict) and isinstance(entry.get("step"), int):
            entries.append(entry)
    return entries


def _line(entry: dict[str, Any]) -> str:
    return json.dumps(entry, ensure_ascii=False, allow_nan=False) + "\n"
