"""Run recipes in forked processes that can be killed at a chosen change of the disk, and compare what they leave.

Every call that changes the disk (a rename, a sync, a new folder, a deletion) is counted, whoever makes it.
"""

from __future__ import annotations

import json
import os
import re
import resource
import secrets
import shutil
import signal
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from tunewright.console import silent
from tunewright.files import sha256_file
from tunewright.run_recipe import run
from tunewright.runs.folder import read_json

# Keys of JSON files whose values differ between two undisturbed runs.
TIMES = {"seconds", "examples_per_second", "preparation_seconds", "peak_memory", "real_time_factor"}
TIMES |= {"audio"}  # a stream's random number
TIMES |= {"content_sha256", "metrics.jsonl"}  # hashes of files that contain times
MEASURED = re.compile(
    r"[\d.,]+ (?=(ms|s|min|h|KiB|MiB|GiB)\b|examples per second)|data:audio/ogg;base64,[\w+/=]+|\b0\.0\d+\b"
)
# The calls by which a process changes the disk.
CALLS = ("replace", "rename", "fsync", "mkdir", "unlink", "rmdir")
# Seconds until a process counts as hung.
PATIENCE = 120


@dataclass
class StageKind:
    """A recipe of one kind of stage, and the result of a run of it that is not killed."""

    recipe: dict[str, Any]
    place: Path
    seconds: float = 0.0
    calls: list[str] = field(default_factory=list)
    """The changes of the disk by an undisturbed run, in order, as "call target"."""
    content: dict[str, Any] = field(default_factory=dict)

    @property
    def runs(self) -> Path:
        return self.place / "runs"

    @property
    def folder(self) -> Path:
        return self.runs / "killed"

    @property
    def complete(self) -> bool:
        return (self.folder / "run.json").exists() and read_json(self.folder / "run.json", "a run")["complete"]

    def start(self, before: Callable[[], None] = lambda: None) -> int:
        """Run the recipe in a forked process, after calling `before` there; return its process id."""
        if child := os.fork():
            return child
        code = 1
        try:
            secrets.randbits = lambda bits: 12345  # the secret of a private stage, which is another for each run
            before()
            run({**self.recipe, "name": "killed"}, base=self.place, runs=self.runs, console=silent())
            code = 0
        except BaseException:
            resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
            (self.place / "error.txt").write_text(traceback.format_exc())
        finally:
            os._exit(code)

    def finish(self) -> None:
        """Let the run end, and compare its files with those of the undisturbed run."""
        if not self.complete:
            code = exit_code(self.start())
            assert code == 0, (self.place / "error.txt").read_text()
        assert self.complete
        found = run_content(self.folder)
        assert sorted(found) == sorted(self.content)
        assert {name: value for name, value in found.items() if value != self.content[name]} == {}

    def start_anew(self) -> None:
        """Delete all runs."""
        shutil.rmtree(self.runs, ignore_errors=True)


def exit_code(child: int) -> int:
    """Wait for a process; return its exit code, or minus the signal that ended it."""
    until = time.monotonic() + PATIENCE
    while time.monotonic() < until:
        found, status = os.waitpid(child, os.WNOHANG)
        if found:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.002)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    pytest.fail(f"the process was still there after {PATIENCE} seconds")


def run_content(folder: Path) -> dict[str, Any]:
    """Return the content of a run's files by name, without what differs between two undisturbed runs."""
    found: dict[str, Any] = {}
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        if not path.is_file() or name in (".lock", "log.txt") or path.name == "manifest.json":
            continue
        if path.suffix == ".json":
            found[name] = without_times(json.loads(path.read_text()))
        elif path.suffix == ".jsonl":
            found[name] = [without_times(json.loads(line)) for line in path.read_text().splitlines()]
        elif path.suffix in (".html", ".md"):
            found[name] = MEASURED.sub("…", path.read_text())
        else:
            found[name] = sha256_file(path)
    return found


def without_times(value: Any) -> Any:
    """Return parsed JSON without the keys of TIMES, at any depth."""
    if isinstance(value, dict):
        return {key: without_times(entry) for key, entry in value.items() if key not in TIMES}
    return [without_times(entry) for entry in value] if isinstance(value, list) else value


def record_calls(record: Path) -> Callable[[], None]:
    """Return a function that makes this process write each change of the disk to a file."""
    return lambda: watch_calls(lambda number, call: record.open("a").write(call + "\n"))


def kill_before_call(number: int) -> Callable[[], None]:
    """Return a function that makes this process kill itself before the given change of the disk, counted from 1."""

    def strike(at: int, call: str) -> None:
        if at == number:
            os.kill(os.getpid(), signal.SIGKILL)

    return lambda: watch_calls(strike)


def watch_calls(notify: Callable[[int, str], Any]) -> None:
    """Call `notify` with the number, from 1, and the description of each change of the disk, before it happens."""
    count = 0

    def wrapped(name: str, real: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **options: Any) -> Any:
            nonlocal count
            count += 1
            notify(count, f"{name} {Path(str(arguments[1 if name in ('replace', 'rename') else 0])).name}")
            return real(*arguments, **options)

        return call

    for name in CALLS:
        setattr(os, name, wrapped(name, getattr(os, name)))
