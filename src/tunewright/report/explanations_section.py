"""Why a model answered so: each text's tokens, picture's patches, or other parts, shaded by what they add to the answer, and the
check that says whether that can be believed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from tunewright.report import numbers
from tunewright.report.components import number, table
from tunewright.report.html import Html, tag
from tunewright.report.inline_images import image_uri
from tunewright.report.reading import Stage, shown
from tunewright.report.translations import Words
from tunewright.runs.summary.explanation import CheckSummary, ExplanationSummary

# Parts in a table at most; fewer below a picture or text, which shows them all.
LISTED, FEW = 15, 5
SIDE = 280

Unit = tuple[str, float]


def why(words: Words, stage: Stage) -> list[Html | None]:
    """The answers that were explained; nothing where none was."""
    entries = stage.evaluation.explanations if stage.evaluation is not None else None
    if not entries:
        return []
    note = tag("p", words("why_note"), " ", words("why_key"), class_="small")
    return [tag("h3", words("why")), note, *(tag("div", explained(words, entry, "h4")) for entry in entries)]


def explained(words: Words, entry: ExplanationSummary, heading: Literal["h2", "h4"]) -> list[Html | None]:
    """One answer, its parts and its check."""
    units = [(shown(unit.unit, 80), unit.score) for unit in entry.units]
    answer, what = (_phrase(words, phrase) for phrase in (entry.phrases.answer, entry.phrases.explained))
    name = _name(words, entry)
    title = f"{name}{words('colon')}{answer}" if name else answer
    if entry.target is not None:
        title += words("why_right", target=shown(entry.target, 60))
    if not units:
        return [tag(heading, title)]
    drawn = _patches(words, entry, units) or (_tokens(units) if entry.look == "text" else None)
    marks = [
        tag("p", words("why_view")) if entry.view else None,
        None if entry.converged else tag("p", tag("strong", words("why_unconverged"))),
        None if entry.check.faithful else tag("p", tag("strong", words("why_unfaithful"))),
    ]
    absent, method = (words.known(said) for said in (entry.absent, entry.method))
    return [
        tag(heading, title),
        drawn,
        *_listed(words, units, LISTED if drawn is None else FEW),
        *marks,
        _checked(words, entry.check, what),
        tag("p", words("why_how", method=method, what=what, absent=absent), class_="small"),
    ]


def _name(words: Words, entry: ExplanationSummary) -> str:
    parts = [
        None if entry.file is None else shown(entry.file, 80),
        None if entry.row is None else words("row_number", row=numbers.count(entry.row)),
        None if entry.line is None else words("why_line", line=numbers.count(entry.line)),
    ]
    return words("comma").join(part for part in parts if part)


def _phrase(words: Words, value: Sequence[str]) -> str:
    """A phrase with names for its {}, in the page's language."""
    phrase, *names = [shown(part, 80) for part in value] or [""]
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


def _patches(words: Words, entry: ExplanationSummary, units: Sequence[Unit]) -> Html | None:
    """The picture by itself and with its patches shaded; None where it is no picture."""
    picture = image_uri(entry.image)
    rows, columns = entry.shape if entry.shape is not None and len(entry.shape) == 2 else (0, 0)
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


def _checked(words: Words, check: CheckSummary, what: str) -> Html | None:
    names = ("comprehensiveness", "sufficiency", "deletion")
    if any(name not in check.percentile for name in names):
        return None
    above, below, deletion = (f"{check.percentile[name]:.0%}" for name in names)
    return tag(
        "p",
        words(
            "why_checked",
            what=what,
            comprehensiveness=numbers.significant(check.comprehensiveness, 3),
            sufficiency=numbers.significant(check.sufficiency, 3),
            above=above,
            below=below,
            deletion=deletion,
        ),
    )
