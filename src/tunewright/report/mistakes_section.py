"""The worst mistakes, shown: pictures as pictures, rows as small tables."""

from __future__ import annotations

from tunewright.report import numbers
from tunewright.report.components import folded, number
from tunewright.report.html import Html, tag
from tunewright.report.inline_images import image_uri
from tunewright.report.reading import Stage, shown
from tunewright.report.translations import Words
from tunewright.runs.records import LARGEST
from tunewright.runs.summary.evaluation import Mistake

# All pictures of a stage together take at most so many characters of the page.
PICTURES = 240_000
# So many pictures, or rows, are shown at once, the others are folded; of each row so many columns.
OPEN_PICTURES, OPEN_ROWS, COLUMNS = 12, 6, 10


def mistakes(words: Words, stage: Stage) -> list[Html | None]:
    """The test rows with the largest loss."""
    entries = stage.evaluation.mistakes if stage.evaluation is not None else None
    if not entries:
        return []
    note = tag("p", words("mistakes_note", count=len(entries)), class_="small")
    pictures = any(entry.image is not None for entry in entries)
    body = _pictures(words, entries) if pictures else _rows(words, entries)
    return [tag("h3", words("mistakes")), note, *body]


def _pictures(words: Words, entries: list[Mistake]) -> list[Html | None]:
    left = PICTURES
    cells: list[Html] = []
    for entry in entries:
        uri = image_uri(entry.image)
        said = _said(words, entry)
        if uri is not None and len(uri) <= left:
            left -= len(uri)
            # Small pictures keep their pixels when they are enlarged; a short data URI is a small picture.
            picture = tag("img", class_="grain" if len(uri) < 4000 else None, src=uri, alt=said)
        else:
            picture = tag("span", words("no_picture"), class_="gone small")
        cells.append(tag("li", picture, tag("p", tag("b", said), tag("br"), _details(words, entry))))
    return _open_and_folded(words, cells, OPEN_PICTURES, "pictures")


def _rows(words: Words, entries: list[Mistake]) -> list[Html | None]:
    return _open_and_folded(words, [_row(words, entry) for entry in entries], OPEN_ROWS, "rows")


def _open_and_folded(words: Words, items: list[Html], count: int, look: str) -> list[Html | None]:
    rest = items[count:]
    return [
        tag("ul", items[:count], class_=look),
        folded(words("more_mistakes", count=len(rest)), tag("ul", rest, class_=look)) if rest else None,
    ]


def _row(words: Words, entry: Mistake) -> Html:
    given = list((entry.input or {}).items())
    cells = [
        tag("tr", tag("th", shown(name, 60), scope="row"), tag("td", _cell(words, value)))
        for name, value in given[:COLUMNS]
    ]
    rest = len(given) - COLUMNS
    more = tag("p", words("more_columns", count=rest), class_="small") if rest > 0 else None
    return tag(
        "li",
        tag("p", tag("b", _said(words, entry)), tag("br"), _details(words, entry)),
        tag("table", tag("tbody", cells)) if cells else None,
        more,
    )


def _cell(words: Words, value: object) -> object:
    if value is None:
        return tag("span", words("missing"), class_="even")
    if isinstance(value, float) and abs(value) < LARGEST:
        return numbers.significant(value, 6)
    return shown(value, 160)


def _said(words: Words, entry: Mistake) -> str:
    target, prediction = entry.target, entry.prediction
    if isinstance(target, float | int) and isinstance(prediction, float | int):
        return words("mistake_off", target=numbers.significant(target), prediction=numbers.significant(prediction))
    return words("mistake_of", target=_named(words, target), prediction=_named(words, prediction))


def _named(words: Words, value: str | list[str] | float) -> str:
    """A class; or several labels, or none."""
    if not isinstance(value, list):
        return shown(value, 60)
    return shown(words("comma").join(value), 100) if value else words("no_label")


def _details(words: Words, entry: Mistake) -> Html:
    """How sure the model was, or how far off; and which row of the source it is."""
    parts: list[object] = []
    if entry.confidence is not None:
        parts.append(words.html("confidence_of", confidence=number(numbers.confidence(entry.confidence))))
    elif isinstance(entry.target, float | int) and isinstance(entry.prediction, float | int):
        parts.append(words("off_by", error=numbers.significant(abs(entry.target - entry.prediction))))
    parts.append(words("row_number", row=numbers.count(entry.row)))
    return tag("span", [[tag("br") if index else None, part] for index, part in enumerate(parts)], class_="even")
