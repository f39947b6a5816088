"""What a person sees while a run goes on: a live line in a terminal, plain lines elsewhere."""

from __future__ import annotations

import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Protocol

from rich.console import Console as RichConsole
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

# A live line is redrawn so many times a second: more costs training time and nobody reads it.
REDRAWS = 8


class StepReporter(Protocol):
    """Is told after a step: epoch (from 1), step, loss, examples seen, seconds spent."""

    def __call__(self, epoch: int, step: int, loss: float, examples: int, seconds: float) -> None: ...


@dataclass
class Console:
    """The terminal and the run's log.txt."""

    console: RichConsole = field(default_factory=lambda: RichConsole(highlight=False, soft_wrap=True))
    log: Callable[[str], None] | None = None
    """Gets every line too; set once the run folder exists."""

    def info(self, line: str = "") -> None:
        self.console.print(line, markup=False)
        if self.log is not None:
            self.log(line)

    def warning(self, line: str) -> None:
        self.console.print(f"note: {line}", style="yellow", markup=False)
        if self.log is not None:
            self.log(f"note: {line}")

    @contextmanager
    def training(self, title: str, epochs: int, steps: int, done: int) -> Generator[StepReporter]:
        """A progress bar over all optimiser steps; nothing but the epochs' own lines when not a terminal."""
        if not self.console.is_terminal:
            yield lambda epoch, step, loss, examples, seconds: None
            return
        columns = (
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("loss {task.fields[loss]:.4f}  {task.fields[rate]:,.0f} examples/s"),
            TimeRemainingColumn(),
        )
        with Progress(*columns, console=self.console, transient=True, auto_refresh=False) as progress:
            bar = progress.add_task(title, total=steps, completed=done, loss=float("nan"), rate=0.0)
            due = 0.0

            def report(epoch: int, step: int, loss: float, examples: int, seconds: float) -> None:
                nonlocal due
                if (now := time.monotonic()) < due:
                    return
                due = now + 1 / REDRAWS
                description = f"{title}  epoch {epoch}/{epochs}"
                rate = examples / seconds if seconds else 0.0
                progress.update(bar, completed=step, description=description, loss=loss, rate=rate)
                progress.refresh()

            yield report

    @contextmanager
    def counting(self, title: str) -> Generator[Callable[[int], None]]:
        """A count of rows while data is prepared."""
        if not self.console.is_terminal:
            yield lambda rows: None
            return
        with self.console.status(title) as status:
            yield lambda rows: status.update(f"{title}  {rows:,} rows")


def silent() -> Console:
    """A screen that shows nothing: for repetitions and for the Python API with `quiet=True`."""
    return Console(console=RichConsole(quiet=True))
