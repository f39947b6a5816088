"""Why a model answered so: each text's tokens, picture's patches, or other parts, shaded by what they add to the answer, and the
check that says whether that can be believed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

from tunewright.report import numbers
from tunewright.report.components import number, table
from tunewright.report.html import Html, tag
from tunewright.report.inline_images import image_uri
from tunewright.report.reading import Stage, mapping, number_from, sequence, shown, words_of
from tunewright.report.translations import Words

# Parts in a table at most; fewer below a picture or text, which shows them all.
LISTED, FEW = 15, 5
SIDE = 280

Unit = tuple[str, float]


def why(words: Words, stage: Stage) -> list[Html | None]:
    """The answers that were explained; nothing where none was."""
    entries = [mapping(entry) for entry in sequence(stage.part("evaluation").get("explanations"))]
    if not entries:
        return []
    note = tag("p", words("why_note"), " ", words("why_key"), class_="small")
    return [tag("h3", words("why")), note, *(tag("div", explained(words, entry, "h4")) for entry in entries)]


def explained(words: Words, entry: dict[str, Any], heading: Literal["h2", "h4"]) -> list[Html | None]:
    """One answer, its parts and its check."""
    units = [
        (shown(unit.get("unit"), 80), score)
        for unit in map(mapping, sequence(entry.get("units")))
        if (score := number_from(unit.get("score"))) is not None
    ]
    phrases = mapping(entry.get("phrases"))
    answer, what = (_phrase(words, phrases.get(name)) for name in ("answer", "explained"))
    name = _name(words, entry)
    title = f"{name}{words('colon')}{answer}" if name else answer
    if entry.get("target") is not None:
        title += words("why_right", target=shown(entry["target"], 60))
    if not units:
        return [tag(heading, title)]
    drawn = _patches(words, entry, units) or (_tokens(units) if entry.get("look") == "text" else None)
    marks = [
        tag("p", words("why_view")) if entry.get("view") is True else None,
        None if entry.get("converged") is not False else tag("p", tag("strong", words("why_unconverged"))),
        None
        if mapping(entry.get("check")).get("faithful") is not False
        else tag("p", tag("strong", words("why_unfaithful"))),
    ]
    absent, method = (words.known(words_of(entry.get(key)) or "") for key in ("absent", "method"))
    return [
        tag(heading, title),
        drawn,
        *_listed(words, units, LISTED if drawn is None else FEW),
        *marks,
        _checked(words, mapping(entry.get("check")), what),
        tag("p", words("why_how", method=method, what=what, absent=absent), class_="small"),
    ]


def _name(words: Words, entry: dict[str, Any]) -> str:
    file, row, line = words_of(entry.get("file")), number_from(entry.get("row")), number_from(entry.get("line"))
    parts = [
        None if file is None else shown(file, 80),
        None if row is None else words("row_number", row=numbers.count(row)),
        None if line is None else words("why_line", line=numbers.count(line)),
    ]
    return words("comma").join(part for part in parts if part)


def _phrase(words: Words, value: object) -> str:
    """A phrase with names for its {}, in the page's language."""
    phrase, *names = [shown(part, 80) for part in sequence(value)] or [""]
    parts = words.known(phrase).split("{}")
    return "".join(part + name for part, name in zip(parts, [*names, *[""] * len(parts)]))


def _shade(score: float, largest: float) -> str:
    """A colour of the palette, from none to the strongest that carries ink."""
    step = round(3 * abs(score) / largest) if largest > 0 else 0
    return "transparent" if step == 0 else f"var(--{'b' if score > 0 else 'o'}{step})"


def _tokens(units: Sequence[Unit]) -> Html:
    largest = max(abs(score) for _, score in units)
    spans = [
        tag("span", unit, style=f"background:{_shade(score, largest)}", title=f"{score:+.4f}") for unit, score in units
    ]
    return tag("p", [[span, " "] for span in spans], class_="tokens")


def _patches(words: Words, entry: dict[str, Any], units: Sequence[Unit]) -> Html | None:
    """The picture by itself and with its patches shaded; None where it is no picture."""
    picture = image_uri(entry.get("image"))
    rows, columns = (int(number_from(size) or 0) for size in (*sequence(entry.get("shape")), None, None)[:2])
    if picture is None or rows < 1 or rows * columns != len(units):
        return None
    height, width = SIDE / rows, SIDE / columns
    largest = max(abs(score) for _, score in units) or 1.0
    cells = [
        tag(
            "rect",
            tag("title", f"{unit}{words('colon')}{score:+.4f}"),
            x=float(place % columns * width),
            y=float(place // columns * height),
            width=float(width),
            height=float(height),
            fill="var(--one)" if score > 0 else "var(--two)",
            fill_opacity=float(0.75 * abs(score) / largest),
        )
        for place, (unit, score) in enumerate(units)
    ]
    image = tag("image", href=picture, width=SIDE, height=SIDE, preserveAspectRatio="none", class_="grain")

    def drawing(said: str, *parts: object) -> Html:
        box = f"0 0 {SIDE} {SIDE}"
        return tag("svg", image, *parts, width=SIDE, height=SIDE, viewBox=box, role="img", aria_label=said)

    return tag("p", drawing(words("why_picture")), " ", drawing(words("why_patches"), cells), class_="patches")


def _listed(words: Words, units: Sequence[Unit], most: int) -> list[Html | None]:
    first = sorted(units, key=lambda unit: -abs(unit[1]))[:most]
    largest = abs(first[0][1]) or 1.0
    rows = [(unit, number(f"{score:+.4f}"), _bar(score, largest)) for unit, score in first]
    more = len(units) - len(first)
    return [
        table([words("why_unit"), words("why_score"), ""], rows, caption=words("why_units"), right=(1,)),
        tag("p", words("why_more", count=numbers.count(more)), class_="small") if more else None,
    ]


def _bar(score: float, largest: float) -> Html:
    fill = "var(--one)" if score > 0 else "var(--two)"
    bar = tag("rect", width=float(160 * abs(score) / largest), height=12, fill=fill)
    return tag("svg", bar, width=160, height=12, role="img", aria_label=f"{score:+.4f}")


def _checked(words: Words, check: dict[str, Any], what: str) -> Html | None:
    falls = {key: number_from(check.get(key)) for key in ("comprehensiveness", "sufficiency")}
    shares = {key: number_from(mapping(check.get("percentile")).get(key)) for key in (*falls, "deletion")}
    if None in (*falls.values(), *shares.values()):
        return None
    written = {key: numbers.significant(value or 0.0, 3) for key, value in falls.items()}
    above, below, deletion = (f"{share:.0%}" for share in shares.values())
    return tag("p", words("why_checked", what=what, above=above, below=below, deletion=deletion, **written))
