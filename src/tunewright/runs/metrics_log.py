"""metrics.jsonl: what a training reports, line by line."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from tunewright.files import write_atomic
from tunewright.notes import note


class MetricsLog:
    """metrics.jsonl: one JSON object a line, appended; on resume, what came after the checkpoint is taken back."""

    def __init__(self, path: Path | None, *, step: int) -> None:
        """Open the file of a training that goes on after `step`; None: a process that keeps no record."""
        if path is not None:
            kept = [line for line in read_metrics(path) if line["step"] <= step] if path.exists() else []
            write_atomic(path, "".join(_line(entry) for entry in kept))
        self._kept = path is not None
        path = path or Path(os.devnull)
        self._file = path.open("a", encoding="utf-8")

    def append(self, entry: dict[str, Any]) -> None:
        self._file.write(_line(entry))
        if entry["kind"] == "epoch":
            self._file.flush()

    def sync(self) -> None:
        """Make every line so far survive a kill and a power cut: before a checkpoint, which lines are kept up to."""
        self._file.flush()
        if self._kept:
            os.fsync(self._file.fileno())

    def close(self) -> None:
        self._file.close()


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """The lines of a metrics.jsonl; none where there is no such file.

    A last line that was cut off by a kill is skipped, it will be written again; any other that is damaged is skipped, and said.
    """
    entries: list[dict[str, Any]] = []
    if not path.exists():
        return entries
    lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    for number, line in enumerate(lines, start=1):
        try:
            entry = json.loads(line)
        except (ValueError, RecursionError):
            entry = None
        if isinstance(entry, dict) and isinstance(entry.get("step"), int) and isinstance(entry.get("kind"), str):
            entries.append(entry)
        elif number < len(lines):
            note(f"{path}, line {number}: damaged; it is skipped")
    return entries


def _line(entry: dict[str, Any]) -> str:
    return json.dumps(entry, ensure_ascii=False, allow_nan=False) + "\n"
