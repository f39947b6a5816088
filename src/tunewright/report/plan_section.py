"""What was foretold before anything was spent, and what it then took."""

from __future__ import annotations

from typing import Any

from tunewright.report import numbers
from tunewright.report.components import number, stage_title, table
from tunewright.report.html import Html, tag
from tunewright.report.reading import RunFiles, Stage, mapping, number_from, words_of
from tunewright.report.translations import Words


def planned(words: Words, run: RunFiles) -> list[Html | None]:
    """A table for each stage that was planned; nothing where none was."""
    found: list[Html | None] = []
    for stage in run.stages:
        if plan := mapping(run.plan.get(stage.name)):
            found.append(_stage(words, stage, plan))
    return [tag("p", words("plan_note")), *found] if found else []


def _stage(words: Words, stage: Stage, plan: dict[str, Any]) -> Html:
    done = stage.part("training")
    rows = [
        _row(words("plan_seconds"), mapping(plan.get("seconds")), done.get("seconds"), numbers.duration),
        _row(words("plan_memory"), mapping(plan.get("process")), done.get("peak_memory"), numbers.size),
    ]
    peak = number_from(plan.get("peak"))
    if peak is not None:
        rows.append((words("plan_tensors"), number(numbers.size(peak)), number("–"), "–"))
    energy = mapping(plan.get("energy"))
    rows.append(_row(words("plan_energy"), energy, None, lambda value: f"{numbers.significant(1000 * value, 2)} Wh"))
    basis = words_of(plan.get("basis"))
    caption = stage_title(words, stage) + (f"{words('comma')}{words.known(basis)}" if basis else "")
    head = [words(key) for key in ("plan_what", "plan_foretold", "plan_real", "plan_error")]
    return table(head, rows, caption=caption, right=[1, 2, 3])


def _row(name: str, span: dict[str, Any], real: object, write: Any) -> tuple[object, ...]:
    low, middle, high = (number_from(span.get(key)) for key in ("low", "middle", "high"))
    if low is None or middle is None or high is None:
        return name, "–", "–", "–"
    foretold = number(f"{write(middle)} [{write(low)}, {write(high)}]")
    took = number_from(real)
    if not took:
        return name, foretold, "–", "–"
    error = f"{100 * (middle / took - 1):+.0f} %".replace("-", "−")
    return name, foretold, number(write(took)), number(error)
