"""What was predicted before a run began, and what it then took."""

from __future__ import annotations

from collections.abc import Callable

from tunewright.report import numbers
from tunewright.report.components import number, stage_title, table
from tunewright.report.html import Html, tag
from tunewright.report.reading import RunFiles, Stage
from tunewright.report.translations import Words
from tunewright.runs.run_files import PlannedSpan, PlannedStage


def planned(words: Words, run: RunFiles) -> list[Html | None]:
    """A table for each stage that was planned; nothing where none was."""
    found = [_stage(words, stage, run.plan.stages[stage.name]) for stage in run.stages if stage.name in run.plan.stages]
    return [tag("p", words("plan_note")), *found] if found else []


def _stage(words: Words, stage: Stage, plan: PlannedStage) -> Html:
    done = stage.summary.training
    rows = [
        _row(words("plan_seconds"), plan.seconds, done.seconds, numbers.duration),
        _row(words("plan_memory"), plan.process, done.peak_memory, numbers.size),
    ]
    if plan.peak is not None:
        rows.append((words("plan_tensors"), number(numbers.size(plan.peak)), number("–"), "–"))
    rows.append(_row(words("plan_energy"), plan.energy, None, _watt_hours))
    caption = stage_title(words, stage) + (f"{words('comma')}{words.known(plan.basis)}" if plan.basis else "")
    head = [words(key) for key in ("plan_what", "plan_predicted", "plan_actual", "plan_error")]
    return table(head, rows, caption=caption, right=[1, 2, 3])


def _watt_hours(kilowatt_hours: float) -> str:
    return f"{numbers.significant(1000 * kilowatt_hours, 2)} Wh"


def _row(
    name: str, span: PlannedSpan | None, actual: float | None, write: Callable[[float], str]
) -> tuple[object, ...]:
    if span is None:
        return name, "–", "–", "–"
    predicted = number(f"{write(span.middle)} [{write(span.low)}, {write(span.high)}]")
    if not actual:
        return name, predicted, "–", "–"
    error = f"{100 * (span.middle / actual - 1):+.0f} %".replace("-", "−")
    return name, predicted, number(write(actual)), number(error)
