"""What a language model wrote by itself while it was trained."""

from __future__ import annotations

from tunewright.report import numbers
from tunewright.report.components import folded, number, table
from tunewright.report.html import Html, tag
from tunewright.report.reading import Stage, number_from, words_of
from tunewright.report.translations import Words


def samples(words: Words, stage: Stage) -> list[Html | None]:
    """The last sample, and all of them by epoch."""
    found = [
        (epoch, text)
        for entry in stage.samples
        if (epoch := number_from(entry.get("epoch"))) is not None and (text := words_of(entry.get("text"))) is not None
    ]
    if not found:
        return []
    rows = [(number(numbers.count(epoch)), tag("pre", text)) for epoch, text in found]
    every = table([words("epoch"), words("sample_text")], rows, caption=words("samples"))
    return [
        tag("h3", words("samples")),
        tag("pre", found[-1][1]),
        folded(words("samples"), every) if len(found) > 1 else None,
        tag("p", words("samples_how"), class_="small"),
    ]
