"""What a language model generated while it was trained."""

from __future__ import annotations

from tunewright.report import numbers
from tunewright.report.components import folded, number, table
from tunewright.report.html import Html, tag
from tunewright.report.reading import Stage
from tunewright.report.translations import Words


def samples(words: Words, stage: Stage) -> list[Html | None]:
    """The last sample, and all of them by epoch."""
    found = [line for line in stage.curves.samples if line.text.strip()]
    if not found:
        return []
    rows = [(number(numbers.count(line.epoch)), tag("pre", line.text)) for line in found]
    every = table([words("epoch"), words("sample_text")], rows, caption=words("samples"))
    return [
        tag("h3", words("samples")),
        tag("pre", found[-1].text),
        folded(words("samples"), every) if len(found) > 1 else None,
        tag("p", words("samples_how"), class_="small"),
    ]
