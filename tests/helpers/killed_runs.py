"""Runs in forked processes that are killed, stopped or refused a write at a chosen change of the disk, and what they leave."""

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

# What differs between two undisturbed runs.
TIMES = {"seconds", "examples_per_second", "preparation_seconds", "peak_memory", "real_time_factor"}
TIMES |= {"audio"}  # a stream's random number
# Hashes of what holds times.
TIMES |= {"content_sha256", "metrics.jsonl"}


MEASURED = re.compile(
    r"[\d.,]+ (?=(ms|s|min|h|KiB|MiB|GiB)\b|examples per second)|data:audio/ogg;base64,[\w+/=]+|\b0\.0\d+\b"
)


# The calls by which a process changes what is on the disk.
CALLS = ("replace", "rename", "fsync", "mkdir", "unlink", "rmdir")


PATIENCE = 120


@dataclass
class Kind:
    """A recipe of one kind, and how a run of it ends that nobody kills."""

    recipe: dict[str, Any]
    place: Path
    seconds: float = 0.0
    calls: list[str] = field(default_factory=list)
    """What an undisturbed run changes on the disk, in order, as "name target"."""
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
        """Carry out the recipe in a forked process; returns its process id."""
        if child := os.fork():
            return child
        code = 1
        try:
            secrets.randbits = lambda bits: 12345  # the secret of a private stage, which is another for each run
            before()
            run({**self.recipe, "name": "killed"}, base=self.place, runs=self.runs, screen=silent())
            code = 0
        except BaseException:
            resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
            (self.place / "error.txt").write_text(traceback.format_exc())
        finally:
            os._exit(code)

    def finish(self) -> None:
        """Let the run end, and hold it against the undisturbed one."""
        if not self.complete:
            code = ended(self.start())
            assert code == 0, (self.place / "error.txt").read_text()
        assert self.complete
        found = content(self.folder)
        assert sorted(found) == sorted(self.content)
        assert {name: value for name, value in found.items() if value != self.content[name]} == {}

    def start_anew(self) -> None:
        shutil.rmtree(self.runs, ignore_errors=True)


def ended(child: int) -> int:
    """How a process ended: its exit code, or minus the signal."""
    until = time.monotonic() + PATIENCE
    while time.monotonic() < until:
        found, status = os.waitpid(child, os.WNOHANG)
        if found:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.002)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    pytest.fail(f"the process was still there after {PATIENCE} seconds")


def content(folder: Path) -> dict[str, Any]:
    """All that a run leaves, by file, without what differs between two undisturbed runs."""
    found: dict[str, Any] = {}
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        if not path.is_file() or name in (".lock", "log.txt") or path.name == "manifest.json":
            continue
        if path.suffix == ".json":
            found[name] = timeless(json.loads(path.read_text()))
        elif path.suffix == ".jsonl":
            found[name] = [timeless(json.loads(line)) for line in path.read_text().splitlines()]
        elif path.suffix in (".html", ".md"):
            found[name] = MEASURED.sub("…", path.read_text())
        else:
            found[name] = sha256_file(path)
    return found


def timeless(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: timeless(entry) for key, entry in value.items() if key not in TIMES}
    return [timeless(entry) for entry in value] if isinstance(value, list) else value


def noting(record: Path) -> Callable[[], None]:
    """Writes down each call that changes what is on the disk."""
    return lambda: wrap(lambda number, call: record.open("a").write(call + "\n"))


def deadly(number: int) -> Callable[[], None]:
    """Kills the process before the so-many-th call that changes what is on the disk."""

    def strike(at: int, call: str) -> None:
        if at == number:
            os.kill(os.getpid(), signal.SIGKILL)

    return lambda: wrap(strike)


def wrap(told: Callable[[int, str], Any]) -> None:
    count = 0

    def wrapped(name: str, real: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **options: Any) -> Any:
            nonlocal count
            count += 1
            told(count, f"{name} {Path(str(arguments[1 if name in ('replace', 'rename') else 0])).name}")
            return real(*arguments, **options)

        return call

    for name in CALLS:
        setattr(os, name, wrapped(name, getattr(os, name)))
