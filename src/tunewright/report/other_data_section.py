"""What a stage changed elsewhere: other texts and questions, before and after it."""

from __future__ import annotations

from tunewright.report import numbers
from tunewright.report.components import as_found, check, difference, estimate, number, table
from tunewright.report.html import Html, tag
from tunewright.report.reading import Stage
from tunewright.report.translations import Words
from tunewright.runs.summary.evaluation import OtherDataSummary, Verdict

VERDICTS: dict[Verdict, tuple[str, str]] = {
    "better": ("other_better", "good"),
    "worse": ("other_worse", "bad"),
    "no real difference": ("other_even", "even"),
}


def other_data(words: Words, stage: Stage) -> list[Html | None]:
    """A sentence for each, and a table."""
    entries = stage.evaluation.other_data if stage.evaluation is not None else None
    if not entries:
        return []
    lines = [line for entry in entries for line in _lines(words, stage, entry)]
    rows = [row for entry in entries for row in _rows(words, stage, entry)]
    keys = ("other_what", "other_rows", "other_before", "other_now", "other_change", "other_guesses")
    return [
        tag("h3", words("other")),
        tag("ul", lines, class_="checks") if lines else None,
        table([words(key) for key in keys], rows, caption=words("other"), right=(1,)),
        tag("p", words("other_how"), class_="small"),
    ]


def _lines(words: Words, stage: Stage, entry: OtherDataSummary) -> list[Html]:
    lines: list[Html] = []
    for name, found in entry.metrics.items():
        if found.verdict is None:
            continue
        metric, (key, kind) = stage.metric(name), VERDICTS[found.verdict]
        changed = tag("span", difference(words, metric, found.difference))
        sentence = words.html(
            key, name=as_found(words, entry.name), metric=words.title(metric.title), difference=changed
        )
        lines.append(check(kind, sentence))
    return lines


def _rows(words: Words, stage: Stage, entry: OtherDataSummary) -> list[list[object]]:
    guesses = [f"{words.known(guess)} {numbers.percent(share)}" for guess, share in entry.guesses.items()]
    rows: list[list[object]] = []
    for name, found in entry.metrics.items():
        metric, unknown = stage.metric(name), words("not_measured")
        rows.append(
            [
                tag("span", as_found(words, entry.name), words("colon"), words.title(metric.title)),
                numbers.count(entry.rows),
                unknown if found.before is None else estimate(words, metric, found.before),
                estimate(words, metric, found.now),
                number(unknown if found.difference is None else difference(words, metric, found.difference)),
                words("comma").join(guesses) or "–",
            ]
        )
    return rows
