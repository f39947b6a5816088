"""A head that was solved for on few examples: why, and how its strength was chosen."""

from __future__ import annotations

from tunewright.report import numbers
from tunewright.report.components import as_found, capital, folded, number, table
from tunewright.report.html import Html, tag
from tunewright.report.reading import Stage
from tunewright.report.translations import Words


def few_shot(words: Words, stage: Stage) -> list[Html | None]:
    """The reason, the strength with its cross-validated scores, and how to have ordinary training."""
    if (found := stage.summary.training.few_shot) is None:
        return []
    reason = words(
        "few_asked" if found.requested else "few_reason",
        count=f"{found.examples_per_class:.3g}",
        few=numbers.count(found.threshold),
    )
    step = words("few_pairs") if found.method == "contrastive" else words("few_features")
    chosen = words.html(
        "few_strength" if found.folds else "few_usual",
        features=numbers.count(found.features),
        strength=number(numbers.significant(found.strength)),
        folds=numbers.count(found.folds),
    )
    rows = [
        [
            numbers.significant(entry.strength),
            numbers.significant(entry.log_loss, aligned=True),
            numbers.percent(entry.accuracy),
        ]
        for entry in found.scores
    ]
    head = ["C", capital(words("few_log_loss")), capital(words("few_accuracy"))]
    return [
        tag("h3", words("few_shot")),
        tag("p", reason, " ", step, " ", chosen),
        tag("ul", [tag("li", as_found(words, note)) for note in found.notes], class_="small") if found.notes else None,
        folded(words("few_scores"), table(head, rows, caption=words("few_scores"), right=[1, 2])) if rows else None,
        tag("p", words("few_otherwise"), class_="small"),
    ]
