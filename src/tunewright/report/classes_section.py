"""How a classifier errs: the confusion matrix, and whether its confidence can be believed."""

from __future__ import annotations

from typing import Any

from tunewright.report import numbers
from tunewright.report.charts import Bin, reliability_chart
from tunewright.report.components import capital, folded, number, scroll, table
from tunewright.report.heat_map import LARGEST, NUMBERED, heat_map
from tunewright.report.html import Html, tag
from tunewright.report.reading import Stage, mapping, number_from, sequence, shown, words_of
from tunewright.report.translations import Words

# The confusions that are listed beside the matrix.
PAIRS = 10


def confused(words: Words, stage: Stage) -> list[Html | None]:
    """The confusion matrix, folded when it has many classes, and the most frequent confusions."""
    found = stage.part("evaluation", "confusion")
    labels = [shown(label, 60) for label in sequence(found.get("labels"))]
    counts = [[_count(count) for count in sequence(row)] for row in sequence(found.get("counts"))]
    size = len(labels)
    if not labels or len(counts) != size or any(len(row) != size for row in counts):
        return []
    parts: list[Html | None] = [tag("h3", words("confusion"))]
    many = size > NUMBERED
    if size <= LARGEST:
        matrix = scroll(_matrix(words, labels, counts), words("confusion"))
        figure = tag("figure", tag("figcaption", words("confusion_note")), matrix)
        parts.append(folded(words("show_matrix", count=size), figure) if many else figure)
    else:
        parts.append(tag("p", words("matrix_too_large", count=numbers.count(size)), class_="small"))
    pairs = _pairs(words, labels, counts)
    return [*parts, pairs if many else folded(words("confusion_pairs"), pairs)]


def _count(value: object) -> int:
    return max(0, int(number_from(value) or 0))


def _matrix(words: Words, labels: list[str], counts: list[list[int]]) -> Html:
    totals = [sum(row) for row in counts]
    right = sum(row[index] for index, row in enumerate(counts))

    def hint(row: int, column: int) -> str:
        return words(
            "confusion_cell",
            target=labels[row],
            prediction=labels[column],
            count=numbers.count(counts[row][column]),
            total=numbers.count(totals[row]),
            share=numbers.value("accuracy", counts[row][column] / (totals[row] or 1)),
        )

    said = f"{words('confusion')}{words('colon')}{numbers.count(right)} / {numbers.count(sum(totals))} {words('right')}"
    return heat_map(
        labels, counts, label=said, row_label=words("right_class"), column_label=words("predicted_class"), hint=hint
    )


def _pairs(words: Words, labels: list[str], counts: list[list[int]]) -> Html:
    wrong = [(count, i, j) for i, row in enumerate(counts) for j, count in enumerate(row) if i != j and count]
    if not wrong:
        return tag("p", words("no_confusions"))
    wrong.sort(key=lambda pair: (-pair[0], pair[1], pair[2]))
    rows = [
        (
            labels[i],
            labels[j],
            number(numbers.count(count)),
            number(numbers.value("accuracy", count / sum(counts[i]))),
        )
        for count, i, j in wrong[:PAIRS]
    ]
    head = [capital(words(key)) for key in ("right_class", "predicted_class", "rows", "share_of_class")]
    return table(head, rows, caption=words("confusion_pairs"), right=[2, 3])


def calibrated(words: Words, stage: Stage) -> list[Html | None]:
    """The reliability diagram before and after temperature scaling, and what the temperature changed."""
    found = stage.part("evaluation", "calibration")
    before, after = (_bins(words, found.get(key)) for key in ("bins", "bins_after"))
    temperature = number_from(found.get("temperature"))
    if not before and temperature is None:
        return []
    parts: list[Html | None] = [tag("h3", words("calibration"))]
    if before:
        chart = reliability_chart(
            before,
            after,
            label=words("calibration"),
            x_label=words("confidence"),
            y_label=words("share_right"),
            names=(words("before"), words("after")),
            tick=lambda value, step: numbers.tick("accuracy", value, step),
        )
        parts.append(tag("figure", tag("figcaption", words("calibration_note")), chart, class_="reliability"))
    return [*parts, *_effect(words, found, temperature)]


def _effect(words: Words, found: dict[str, Any], temperature: float | None) -> list[Html | None]:
    errors = [number_from(value) for value in sequence(found.get("ece"))]
    losses = [number_from(value) for value in sequence(found.get("log_loss"))]
    note = words_of(found.get("note"))
    sentences: list[Html] = []
    if temperature is not None and len(errors) == 2 and errors[0] is not None and errors[1] is not None:
        sentences.append(
            words.html(
                "calibration_result",
                temperature=numbers.significant(temperature, 3),
                split=words.known(words_of(found.get("fitted_on")) or "valid"),
                before=number(numbers.value("ece", errors[0])),
                after=number(numbers.value("ece", errors[1])),
            )
        )
    if len(losses) == 2 and losses[0] is not None and losses[1] is not None:
        pair = [number(numbers.value("log_loss", loss)) for loss in losses if loss is not None]
        sentences.append(words.html("calibration_loss", before=pair[0], after=pair[1]))
    return [
        tag("p", [[sentence, " "] for sentence in sentences]) if sentences else None,
        tag("p", note, class_="small", lang="en") if note else None,
    ]


def _bins(words: Words, value: object) -> list[Bin]:
    found: list[Bin] = []
    for entry in map(mapping, sequence(value)):
        rows, confidence, accuracy = (number_from(entry.get(key)) for key in ("rows", "confidence", "accuracy"))
        if rows and confidence is not None and accuracy is not None:
            said = words(
                "bin_title",
                rows=numbers.count(rows),
                confidence=numbers.value("accuracy", confidence),
                accuracy=numbers.value("accuracy", accuracy),
            )
            found.append(Bin(confidence=confidence, right=accuracy, rows=rows, title=said))
    return found
