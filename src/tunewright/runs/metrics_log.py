"""metrics.jsonl: what training reports, line by line."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

from tunewright.errors import ArtifactError
from tunewright.files import write_atomic
from tunewright.notes import note
from tunewright.runs.records import Count, Within, from_json

# The name of the objective's value among validation results; the others are metrics.
LOSS = "loss"


@dataclass(frozen=True, kw_only=True)
class StepLine:
    """A training step."""

    step: Count
    loss: float
    lr: float


@dataclass(frozen=True, kw_only=True)
class EpochLine:
    """The end of an epoch, counted from 1."""

    epoch: Annotated[int, Within(1)]
    step: Count
    train_loss: float
    valid: dict[str, float] | None = None
    """The validation results: `LOSS`, and metrics by name; None: there are no validation rows."""
    lr: float


@dataclass(frozen=True, kw_only=True)
class SampleLine:
    """What the model generated after an epoch."""

    epoch: Count
    text: str


@dataclass(frozen=True, kw_only=True)
class Curves:
    """The lines of a metrics.jsonl by their kind."""

    epochs: list[EpochLine] = field(default_factory=list)
    steps: list[StepLine] = field(default_factory=list)
    samples: list[SampleLine] = field(default_factory=list)


class MetricsLog:
    """Appends one JSON object per line; on resume, lines after the checkpoint are removed."""

    def __init__(self, path: Path | None, *, step: int) -> None:
        """Open the file of a training that continues after `step`; None: this process keeps no record."""
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
        """Make every line so far survive a kill and a power cut, before a checkpoint that lines are kept up to."""
        self._file.flush()
        if self._kept:
            os.fsync(self._file.fileno())

    def close(self) -> None:
        self._file.close()


def read_curves(path: Path) -> Curves:
    """Return the lines of a metrics.jsonl by their kind; damaged ones are skipped, with a note."""
    found = Curves()
    kinds: dict[str, tuple[type, list[Any]]] = {
        "epoch": (EpochLine, found.epochs),
        "step": (StepLine, found.steps),
        "sample": (SampleLine, found.samples),
    }
    for entry in read_metrics(path):
        if entry["kind"] in kinds:
            record, lines = kinds[entry["kind"]]
            try:
                lines.append(from_json(record, entry, file=path))
            except ArtifactError as error:
                note(f"{path}, step {entry['step']}, {error.place}: {error.problem}; the line is skipped")
    return found


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """Return the lines of a metrics.jsonl; none where there is no such file.

    A last line that was cut off by a kill is skipped, as it will be written again; any other damaged line is skipped, with a note.
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
