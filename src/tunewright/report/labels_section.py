"""Rows with several labels: the result by label, and what other thresholds would change."""

from __future__ import annotations

from tunewright.report import numbers
from tunewright.report.components import LONG, capital, fold_if, number, table
from tunewright.report.html import Html, tag
from tunewright.report.reading import Stage, shown
from tunewright.report.translations import Words
from tunewright.runs.summary.evaluation import ThresholdSummary


def labelled(words: Words, stage: Stage) -> list[Html | None]:
    """A row for each label, in place of a confusion matrix; then the effect of thresholds chosen on validation rows."""
    if stage.evaluation is None or not stage.evaluation.labels:
        return []
    thresholds = stage.evaluation.thresholds
    rows = [
        [
            shown(entry.label, 60),
            numbers.count(entry.rows),
            numbers.count(entry.predicted),
            *map(_score, (entry.precision, entry.recall, entry.f1, entry.average_precision)),
            *([_score(thresholds.by_label.get(entry.label))] if thresholds is not None else []),
        ]
        for entry in stage.evaluation.labels
    ]
    head = ["label", "label_rows", "label_predicted", "label_precision", "label_recall", "label_f1", "label_ap"]
    head += ["threshold"] if thresholds is not None else []
    found = table(
        [capital(words(key)) for key in head], rows, caption=words("by_label"), right=list(range(1, len(head)))
    )
    return [
        tag("h3", words("by_label")),
        fold_if(len(rows) > LONG, words("show_labels", count=len(rows)), found),
        None if thresholds is None else _effect(words, thresholds),
    ]


def _score(value: float | None) -> Html:
    return number("–" if value is None else numbers.score(value))


def _effect(words: Words, found: ThresholdSummary) -> Html | None:
    if len(found.f1_micro) != 2 or len(found.f1_macro) != 2:
        return None
    micro, macro = ([_score(value) for value in pair] for pair in (found.f1_micro, found.f1_macro))
    return tag(
        "p",
        words.html(
            "thresholds_effect",
            split=words.known(found.fitted_on),
            micro=micro[0],
            micro_after=micro[1],
            macro=macro[0],
            macro_after=macro[1],
        ),
    )
