"""The run folder: where a run's files are, whose run it is, and that nobody else is writing to it.

    runs/<name>/   recipe.yaml  recipe.resolved.yaml  environment.json  run.json  log.txt  report.html
                   <stage>/ metrics.jsonl  summary.json  predictions.parquet  checkpoints/  model/
                   seeds/<k>/<stage>/ …        the same for the other seeds
                   <stage>/controls/<name>/ …  the trainings that a stage is compared with

A run is known by its identity: the hash of the resolved recipe, of the data, and of the files of every model that it
starts from. The same recipe on the same files goes on where it was killed; once it is complete, or when anything differs,
the next run gets a folder of its own.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
from collections.abc import Callable, Collection, Generator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from tunewright.checksums import Damage, file_damage, file_facts
from tunewright.errors import ArtifactError
from tunewright.files import open_record, read_bounded, write_atomic, write_record
from tunewright.limits import JSON_BYTES, JSON_DEPTH
from tunewright.notes import note


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
        write_record(self.folder / "run.json", {**self.record, "complete": True})

    def told(self, key: str) -> Any:
        """What run.json says under a key. Raises ArtifactError when it says nothing."""
        if key not in (record := self.record):
            path = self.folder / "run.json"
            raise ArtifactError("the record of the run is not whole", file=path, expected=f"an entry {key!r}")
        return record[key]

    @property
    def recipe(self) -> Path:
        """The file with the run's resolved recipe.

        Raises:
            ArtifactError: it is not what the run wrote.
        """
        path = self.folder / "recipe.resolved.yaml"
        facts = self.record.get("files", {}).get(path.name)
        if facts is not None and (damage := file_damage(path, facts)) is not None:
            raise damaged(
                damage, "restore it from a copy, or run recipe.yaml again; to change a setting, use an override"
            )
        return path

    def log(self, line: str) -> None:
        """Append a line to log.txt."""
        with (self.folder / "log.txt").open("a", encoding="utf-8") as file:
            file.write(line + "\n")


@dataclass(frozen=True, kw_only=True)
class Identity:
    """What makes two runs the same run."""

    recipe: str
    """The SHA-256 of the resolved recipe."""
    data: list[str]
    """The fingerprint of each stage's data."""
    models: dict[str, dict[str, str]]
    """Of each model that the recipe names, the SHA-256 of its files by their names."""

    @property
    def key(self) -> str:
        """One hash of all of it."""
        return hashlib.sha256(json.dumps(asdict(self), sort_keys=True, ensure_ascii=False).encode()).hexdigest()

    def differences(self, before: dict[str, Any]) -> list[str]:
        """What is another now than when a run began, in words.

        Args:
            before: the identity as that run's run.json has it.
        """
        found = ["the recipe"] if before.get("recipe") != self.recipe else []
        found += ["the data"] if before.get("data") != self.data else []
        known = before.get("models") or {}
        for name, files in self.models.items():
            if changed := changed_files(known.get(name) or {}, files):
                found.append(f"{', '.join(changed)} of {name}")
        return found


def recipe_hash(resolved: dict[str, Any]) -> str:
    """The SHA-256 of a resolved recipe."""
    return hashlib.sha256(json.dumps(resolved, sort_keys=True, ensure_ascii=False).encode()).hexdigest()


def changed_files(before: dict[str, str], now: dict[str, str]) -> list[str]:
    """The names of files whose hashes differ, or that are only in one of the two."""
    return sorted(name for name in {*before, *now} if before.get(name) != now.get(name))


@contextmanager
def open_run(
    root: Path,
    name: str,
    identity: Identity,
    files: dict[str, str],
    record: dict[str, Any],
    say: Callable[[str], None],
) -> Generator[tuple[Run, bool]]:
    """The unfinished run of this identity, or a new folder; locked against other processes while it is open.

    Args:
        root: the folder of all runs.
        files: what a new folder gets at once, by file name.
        record: what goes into its run.json besides the identity.
        say: called with the reason why an unfinished run of the same recipe is not continued.

    Yields:
        the run, and whether it goes on from before.
    """
    root.mkdir(parents=True, exist_ok=True)
    # A killed run leaves its folder, a finished one too: so each candidate name is tried in turn.
    for number in range(1, 1_000_000):
        folder = root / (name if number == 1 else f"{name}-{number}")
        if not _may_be_used(folder, identity, files, say):
            continue
        folder.mkdir(exist_ok=True)
        with (folder / ".lock").open("a") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                say(f"another process is at work in {folder}; this one begins a run of its own")
                continue
            # Another process may have begun or finished a run here before the lock was taken.
            if not _may_be_used(folder, identity, files, say):
                continue
            for path in folder.rglob(".*.tmp"):
                path.unlink(missing_ok=True)  # a killed process was writing it
            exists = (folder / "run.json").exists()
            for file, content in files.items():
                write_atomic(folder / file, content)
            facts = {file: file_facts(folder / file) for file in files}
            # run.json is written last: it makes the folder a run.
            known = {"identity": identity.key, "identified_by": asdict(identity)}
            write_record(folder / "run.json", {**known, "complete": False, **record, "files": facts})
            yield Run(folder), exists
            return


def _may_be_used(folder: Path, identity: Identity, files: Collection[str], say: Callable[[str], None]) -> bool:
    """Whether a folder is free for a run of this identity, or holds it unfinished."""
    path = folder / "run.json"
    if not path.exists():
        return not folder.exists() or (folder.is_dir() and _is_free(folder, files, say))
    try:
        known = read_json(path, "a run folder of Tunewright")
    except ArtifactError as error:
        say(f"{path}: {error.problem}; the folder is skipped")
        return False
    if known.get("complete"):
        return False
    if known.get("identity") == identity.key:
        return True
    before = known.get("identified_by") or {}
    if before.get("recipe") == identity.recipe:
        say(f"{folder} is not continued, its files stay as they are: {'; '.join(identity.differences(before))} changed")
    return False


def _is_free(folder: Path, files: Collection[str], say: Callable[[str], None]) -> bool:
    """Whether a folder without run.json is empty, or holds only what a run writes before it; any other is somebody else's."""
    locked = (folder / ".lock").exists()
    if all(path.name in files or path.name.startswith(".") for path in folder.iterdir()):
        return locked or not any(folder.iterdir())
    if locked:
        say(f"{folder / 'run.json'}: the file is missing; the folder is skipped")
    return False


def damaged(damage: Damage, fix: str) -> ArtifactError:
    """The error for a file that is not what was written and cannot be made anew."""
    return ArtifactError(damage.problem, file=damage.file, found=damage.found, expected=damage.expected, fix=fix)


def read_json(path: Path, what: str) -> dict[str, Any]:
    """A JSON object of a run, a model or the cache.

    Raises:
        ArtifactError: the file is missing, or damaged.
    """
    try:
        value = open_record(read_bounded(path, JSON_BYTES, "the file is too large", error=ArtifactError))
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
    JSON_DEPTH.require(_depth(value), "the file is nested too deep", error=ArtifactError, file=path)
    return value


def read_or_forget(path: Path, what: str) -> dict[str, Any] | None:
    """A JSON object that can be made anew: None where it is missing, or damaged, which is said."""
    if not path.exists():
        return None
    try:
        return read_json(path, what)
    except ArtifactError as error:
        note(f"{path}: {error.problem}; it is made anew")
        return None


def _depth(value: Any) -> int:
    """How deep lists and objects lie in each other; counted level by level, as Python's own recursion is bounded."""
    level, depth = [value], 0
    while level := [entry for entry in level if isinstance(entry, dict | list)]:
        level = [inner for entry in level for inner in (entry.values() if isinstance(entry, dict) else entry)]
        depth += 1
    return depth
