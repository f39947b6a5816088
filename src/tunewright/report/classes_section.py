"""How a classifier errs: the confusion matrix, and whether its confidence can be believed."""

from __future__ import annotations

from tunewright.report import numbers
from tunewright.report.charts import Bin, reliability_chart
from tunewright.report.components import capital, folded, number, scroll, table
from tunewright.report.heat_map import LARGEST, NUMBERED, heat_map
from tunewright.report.html import Html, tag
from tunewright.report.reading import Stage, shown
from tunewright.report.translations import Words
from tunewright.runs.summary.evaluation import CalibrationSummary, ReliabilityBin

# The confusions that are listed beside the matrix.
PAIRS = 10


def confused(words: Words, stage: Stage) -> list[Html | None]:
    """The confusion matrix, folded when it has many classes, and the most frequent confusions."""
    found = stage.evaluation.confusion if stage.evaluation is not None else None
    if found is None:
        return []
    labels, counts = [shown(label, 60) for label in found.labels], found.counts
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
            share=numbers.percent(counts[row][column] / (totals[row] or 1)),
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
            number(numbers.percent(count / sum(counts[i]))),
        )
        for count, i, j in wrong[:PAIRS]
    ]
    head = [capital(words(key)) for key in ("right_class", "predicted_class", "rows", "share_of_class")]
    return table(head, rows, caption=words("confusion_pairs"), right=[2, 3])


def calibrated(words: Words, stage: Stage) -> list[Html | None]:
    """The reliability diagram before and after temperature scaling, and what the temperature changed."""
    found = stage.evaluation.calibration if stage.evaluation is not None else None
    if found is None:
        return []
    parts: list[Html | None] = [tag("h3", words("calibration"))]
    if found.bins:
        chart = reliability_chart(
            _bins(words, found.bins),
            _bins(words, found.bins_after),
            label=words("calibration"),
            x_label=words("confidence"),
            y_label=words("share_right"),
            names=(words("before"), words("after")),
            tick=numbers.percent_tick,
        )
        parts.append(tag("figure", tag("figcaption", words("calibration_note")), chart, class_="reliability"))
    return [*parts, _effect(words, found)]


def _effect(words: Words, found: CalibrationSummary) -> Html | None:
    if len(found.ece) != 2 or len(found.log_loss) != 2:
        return None
    errors, losses = ([number(numbers.score(value)) for value in pair] for pair in (found.ece, found.log_loss))
    result = words.html(
        "calibration_result",
        temperature=numbers.significant(found.temperature, 3),
        split=words.known(found.fitted_on),
        before=errors[0],
        after=errors[1],
    )
    return tag("p", result, " ", words.html("calibration_loss", before=losses[0], after=losses[1]))


def _bins(words: Words, found: list[ReliabilityBin]) -> list[Bin]:
    return [
        Bin(
            confidence=entry.confidence,
            right=entry.accuracy,
            rows=entry.rows,
            title=words(
                "bin_title",
                rows=numbers.count(entry.rows),
                confidence=numbers.percent(entry.confidence),
                accuracy=numbers.percent(entry.accuracy),
            ),
        )
        for entry in found
        if entry.rows
    ]
