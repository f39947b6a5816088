"""Print the progress of a run: a live progress bar in a terminal, plain lines elsewhere."""

from __future__ import annotations

import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Protocol

from rich.console import Console as RichConsole
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

# Redraws of the progress bar per second: more would cost training time.
REDRAWS = 8


class StepReporter(Protocol):
    """Report a step: epoch (from 1), step, loss, examples seen so far, seconds spent."""

    def __call__(self, epoch: int, step: int, loss: float, examples: int, seconds: float) -> None: ...


@dataclass
class Console:
    """Print lines to the terminal and to the run's log.txt."""

    rich: RichConsole = field(default_factory=lambda: RichConsole(highlight=False, soft_wrap=True))
    log: Callable[[str], None] | None = None
    """Gets every line too; set when the run folder exists."""

    def info(self, line: str = "") -> None:
        self.rich.print(line, markup=False)
        if self.log is not None:
            self.log(line)

    def warning(self, line: str) -> None:
        self.rich.print(f"note: {line}", style="yellow", markup=False)
        if self.log is not None:
            self.log(f"note: {line}")

    @contextmanager
    def training(self, title: str, epochs: int, steps: int, done: int) -> Generator[StepReporter]:
        """Show a progress bar over all optimizer steps; outside of a terminal, only the lines of the epochs."""
        if not self.rich.is_terminal:
            yield lambda epoch, step, loss, examples, seconds: None
            return
        columns = (
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("loss {task.fields[loss]:.4f}  {task.fields[rate]:,.0f} examples/s"),
            TimeRemainingColumn(),
        )
        with Progress(*columns, console=self.rich, transient=True, auto_refresh=False) as progress:
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
        """Show the number of rows while data is prepared."""
        if not self.rich.is_terminal:
            yield lambda rows: None
            return
        with self.rich.status(title) as status:
            yield lambda rows: status.update(f"{title}  {rows:,} rows")


def silent() -> Console:
    """Return a console that prints nothing."""
    return Console(rich=RichConsole(quiet=True))
