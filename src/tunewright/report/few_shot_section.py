"""A head that was solved for on few examples: why, and how its strength was chosen."""

from __future__ import annotations

from tunewright.report import numbers
from tunewright.report.components import as_found, capital, folded, number, table
from tunewright.report.html import Html, tag
from tunewright.report.reading import Stage, mapping, number_from, sequence, words_of
from tunewright.report.translations import Words


def few_shot(words: Words, stage: Stage) -> list[Html | None]:
    """The reason, the strength with its cross-validated scores, and how to have ordinary training."""
    found = stage.part("training", "few_shot")
    count, few, strength = (number_from(found.get(key)) for key in ("examples_a_class", "few", "C"))
    if count is None or few is None or strength is None:
        return []
    reason = words(
        "few_asked" if found.get("asked_for") else "few_reason", count=f"{count:.3g}", few=numbers.count(few)
    )
    step = words("few_pairs") if found.get("method") == "contrastive" else words("few_features")
    folds = number_from(found.get("folds")) or 0
    chosen = words.html(
        "few_strength" if folds else "few_usual",
        features=numbers.count(number_from(found.get("features")) or 0),
        strength=number(numbers.significant(strength)),
        folds=numbers.count(folds),
    )
    notes = [note for entry in sequence(found.get("notes")) if (note := words_of(entry))]
    rows = [
        [
            numbers.significant(number_from(entry.get("C")) or 0),
            numbers.significant(number_from(entry.get("log_loss")) or 0, aligned=True),
            numbers.value("accuracy", number_from(entry.get("accuracy")) or 0),
        ]
        for entry in map(mapping, sequence(found.get("scores")))
    ]
    head = ["C", *(capital(words.known(metric)) for metric in ("log_loss", "accuracy"))]
    return [
        tag("h3", words("few_shot")),
        tag("p", reason, " ", step, " ", chosen),
        tag("ul", [tag("li", as_found(words, note)) for note in notes], class_="small") if notes else None,
        folded(words("few_scores"), table(head, rows, caption=words("few_scores"), right=[1, 2])) if rows else None,
        tag("p", words("few_otherwise"), class_="small"),
    ]
