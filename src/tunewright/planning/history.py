"""What plans foretold and what runs then took: kept for this user, shown by `plan --history`, and learned from."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median

from pydantic import TypeAdapter, ValidationError
from rich.table import Table

from tunewright.console import Console
from tunewright.files import cache_dir, write_atomic
from tunewright.hardware.resource_model import StagePlan
from tunewright.notes import note

# From so many runs on a machine on its rates are corrected; by no more than this either way, for a slow day is no slow machine.
ENOUGH, MOST = 5, 3.0
KEPT = 1000


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """One stage of one run."""

    when: str
    run: str
    stage: str
    machine: str
    basis: str
    foretold_seconds: float
    """A step, with its share of validation and of what is computed beforehand."""
    took_seconds: float
    foretold_bytes: float
    """The process at its peak."""
    took_bytes: float


OUTCOME = TypeAdapter(Outcome)


def record(plan: StagePlan, *, when: str, run: str, seconds: float, peak: float) -> None:
    """Remember how a plan went."""
    found = Outcome(
        when=when,
        run=run,
        stage=plan.stage,
        machine=plan.machine,
        basis=plan.basis,
        foretold_seconds=plan.seconds.middle / plan.steps,
        took_seconds=seconds,
        foretold_bytes=plan.process.middle,
        took_bytes=peak,
    )
    lines = [json.dumps(asdict(entry)) for entry in [*outcomes(), found][-KEPT:]]
    write_atomic(_path(), "\n".join(lines) + "\n")


def outcomes() -> list[Outcome]:
    """All that is remembered, the oldest first; a damaged line is skipped, and said."""
    if not _path().exists():
        return []
    found: list[Outcome] = []
    for number, line in enumerate(_path().read_text(encoding="utf-8", errors="replace").splitlines(), start=1):
        try:
            found.append(OUTCOME.validate_json(line))
        except ValidationError:
            note(f"{_path()}, line {number}: damaged; it is skipped")
    return found


def learned_factor(machine: str, known: list[Outcome] | None = None) -> float:
    """How many times as long steps took on a machine as their sizes said; 1 where too few are known.

    Only from plans that were made by sizes: what was timed beforehand says nothing of the rates.

    Args:
        known: the outcomes, where they were read already.
    """
    ratios = [
        entry.took_seconds / entry.foretold_seconds
        for entry in (outcomes() if known is None else known)
        if entry.machine == machine and entry.basis != "measured here" and entry.foretold_seconds > 0
    ]
    return min(MOST, max(1 / MOST, median(ratios))) if len(ratios) >= ENOUGH else 1.0


def show_history(*, console: Console | None = None) -> list[Outcome]:
    """Print foretold beside real, and what is learned from it."""
    console = console or Console()
    found = outcomes()
    if not found:
        console.info("no run has been held against its plan yet: `tunewright run` does so")
        return found
    table = Table(title="foretold and real", title_justify="left", box=None, pad_edge=False)
    for name in ("when", "run", "stage", "machine", "basis"):
        table.add_column(name)
    for name in ("a step", "really", "", "memory", "really", ""):
        table.add_column(name, justify="right")
    for entry in found[-40:]:
        table.add_row(
            *(entry.when, entry.run, entry.stage, entry.machine, entry.basis),
            f"{1000 * entry.foretold_seconds:,.1f} ms",
            f"{1000 * entry.took_seconds:,.1f} ms",
            _error(entry.foretold_seconds, entry.took_seconds),
            f"{entry.foretold_bytes / 2**20:,.0f} MiB",
            f"{entry.took_bytes / 2**20:,.0f} MiB",
            _error(entry.foretold_bytes, entry.took_bytes),
        )
    console.rich.print(table)
    times = [abs(entry.foretold_seconds / entry.took_seconds - 1) for entry in found if entry.took_seconds]
    sizes = [abs(entry.foretold_bytes / entry.took_bytes - 1) for entry in found if entry.took_bytes]
    if times and sizes:
        console.info(
            f"off by (median of {len(found)}): time {100 * median(times):.0f} %, memory {100 * median(sizes):.0f} %"
        )
    for machine in dict.fromkeys(entry.machine for entry in found):
        factor = learned_factor(machine, found)
        if factor != 1:
            console.info(f"{machine}: estimates by size are now multiplied by {factor:.2f}")
    return found


def _error(foretold: float, real: float) -> str:
    return f"{100 * (foretold / real - 1):+.0f} %" if real else ""


def _path() -> Path:
    return cache_dir() / "plans" / "history.jsonl"
