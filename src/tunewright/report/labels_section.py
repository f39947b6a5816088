"""Several labels a row: the result label by label, and what other thresholds would change."""

from __future__ import annotations

from tunewright.report import numbers
from tunewright.report.components import LONG, capital, fold_if, number, table
from tunewright.report.html import Html, tag
from tunewright.report.reading import Stage, mapping, number_from, sequence, shown, words_of
from tunewright.report.translations import Words

FIGURES = ("precision", "recall", "f1", "average_precision")


def labelled(words: Words, stage: Stage) -> list[Html | None]:
    """A row for each label, in place of a confusion matrix; then the effect of thresholds chosen on validation."""
    entries = [mapping(entry) for entry in sequence(stage.part("evaluation").get("labels"))]
    if not entries:
        return []
    thresholds = mapping(stage.part("evaluation", "thresholds").get("by_label"))
    rows = [
        [
            shown(entry.get("label", "?"), 60),
            numbers.count(number_from(entry.get("rows")) or 0),
            numbers.count(number_from(entry.get("predicted")) or 0),
            *(_figure(entry.get(key)) for key in FIGURES),
            *([_figure(thresholds.get(str(entry.get("label"))))] if thresholds else []),
        ]
        for entry in entries
    ]
    head = ["label", "label_rows", "label_predicted", *FIGURES, *(["threshold"] if thresholds else [])]
    found = table(
        [capital(words(key)) for key in head], rows, caption=words("by_label"), right=list(range(1, len(head)))
    )
    return [
        tag("h3", words("by_label")),
        fold_if(len(rows) > LONG, words("show_labels", count=len(rows)), found),
        _effect(words, stage),
    ]


def _figure(value: object) -> Html:
    found = number_from(value)
    return number("–" if found is None else numbers.value("f1_macro", found))


def _effect(words: Words, stage: Stage) -> Html | None:
    found = stage.part("evaluation", "thresholds")
    pairs = [[number_from(value) for value in sequence(found.get(name))] for name in ("f1_micro", "f1_macro")]
    values = [value for pair in pairs for value in pair if value is not None]
    if len(values) != 4:
        return None
    written = [number(numbers.value("f1_macro", value)) for value in values]
    split = words.known(words_of(found.get("fitted_on")) or "valid")
    return tag(
        "p",
        words.html(
            "thresholds_effect",
            split=split,
            micro=written[0],
            micro_after=written[1],
            macro=written[2],
            macro_after=written[3],
        ),
    )
