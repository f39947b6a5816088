"""What a stage did to a language model elsewhere: other texts and questions, before and after it."""

from __future__ import annotations

from tunewright.report import numbers
from tunewright.report.components import as_found, check, difference, estimate, number, table
from tunewright.report.html import Html, tag
from tunewright.report.reading import Stage, mapping, number_from, sequence, words_of
from tunewright.report.translations import Words

VERDICTS = {
    "better": ("beside_better", "good"),
    "worse": ("beside_worse", "bad"),
    "no real difference": ("beside_even", "even"),
}


def beside(words: Words, stage: Stage) -> list[Html | None]:
    """A sentence for each, and a table."""
    lines: list[Html] = []
    rows: list[list[object]] = []
    for entry in map(mapping, sequence(stage.part("evaluation").get("beside"))):
        name = as_found(words, words_of(entry.get("name")) or "?")
        guesses = [
            f"{words.known(guess)} {numbers.value('accuracy', value)}"
            for guess, entered in mapping(entry.get("guesses")).items()
            if (value := number_from(entered)) is not None
        ]
        for metric, measured in mapping(entry.get("metrics")).items():
            found = mapping(measured)
            changed = difference(words, metric, found.get("difference")) if "before" in found else None
            rows.append(
                [
                    tag("span", name, words("colon"), words.known(metric)),
                    numbers.count(number_from(entry.get("rows")) or 0),
                    estimate(words, metric, found["before"]) if "before" in found else words("not_measured"),
                    estimate(words, metric, found.get("now")),
                    number(changed) if changed is not None else words("not_measured"),
                    words("comma").join(guesses) or "–",
                ]
            )
            if changed is not None:
                key, kind = VERDICTS.get(str(found.get("verdict")), ("beside_even", "even"))
                lines.append(
                    check(kind, words.html(key, name=name, metric=words.known(metric), difference=tag("span", changed)))
                )
    if not rows:
        return []
    head = [words(key) for key in ("beside_what", "beside_rows", "beside_before", "beside_now", "beside_change")]
    return [
        tag("h3", words("beside")),
        tag("ul", lines, class_="checks") if lines else None,
        table([*head, words("beside_guesses")], rows, caption=words("beside"), right=(1,)),
        tag("p", words("beside_how"), class_="small"),
    ]
