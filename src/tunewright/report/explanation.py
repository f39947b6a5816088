"""Explanations as a page: each text's tokens, picture's patches, or other units, shaded by what they add to the answer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from tunewright.report.html import Html, tag
from tunewright.report.page import page_head

# Units of bars at most; fewer below a picture, which shows them all.
BARS, FEW = 15, 5


@dataclass(frozen=True, kw_only=True)
class Shown:
    """One explanation, and the row that it is of."""

    facts: dict[str, Any]
    """As `tunewright explain --json` has it."""
    picture: str | None
    """A data URI of the picture that it is of."""
    shape: tuple[int, int] | None
    """The picture's rows and columns of patches."""


def explanation_page(title: str, shown: Sequence[Shown]) -> str:
    """One self-contained page that loads and runs nothing."""
    key = tag("p", "Blue adds to the answer, orange takes from it; the stronger, the more.", class_="quiet")
    main = tag("main", [_one(entry) for entry in shown])
    body = tag("body", tag("div", tag("h1", "Why did the model answer so?"), key, main, class_="page"))
    return "<!doctype html>\n" + tag("html", page_head(f"Why? {title}"), body, lang="en") + "\n"


def _one(shown: Shown) -> Html:
    facts = shown.facts
    name = ", ".join(f"{key} {facts[key]}" for key in ("row", "file", "line") if key in facts)
    picture = _patches(shown) if shown.shape is not None else _tokens(facts) if _is_text(shown) else None
    check = facts["check"]
    worse = check["percentile"]
    marks = [
        None if facts["converged"] else tag("p", tag("strong", "Not converged: "), "the scores are rough."),
        None
        if check["faithful"]
        else tag(
            "p", tag("strong", "Not faithful: "), "an order by lot does as well, so do not rely on this explanation."
        ),
    ]
    checked = (
        f"Taking away the first units lowers {facts['explained']} by {check['comprehensiveness']:.3g}, more than "
        f"{worse['comprehensiveness']:.0%} of orders by lot do; keeping them alone lowers it by {check['sufficiency']:.3g}, less "
        f"than {worse['sufficiency']:.0%}; deleting all one after the other does more than {worse['deletion']:.0%}."
    )
    how = f"{facts['method']} of {facts['explained']}; an absent unit is replaced by: {facts['absent']}."
    heading = f"{name}: {facts['answer']}" if name else facts["answer"]
    return tag(
        "section",
        tag("h2", heading),
        picture,
        _bars(facts, FEW if shown.shape is not None else BARS),
        marks,
        tag("p", checked),
        tag("p", how, class_="quiet"),
    )


def _is_text(shown: Shown) -> bool:
    return len(shown.facts["units"]) > 1 and "=" not in shown.facts["units"][0]["unit"]


def _shade(score: float, largest: float) -> str:
    """A colour of the palette, from none to the strongest that carries ink."""
    step = round(3 * abs(score) / largest) if largest > 0 else 0
    return "transparent" if step == 0 else f"var(--{'b' if score > 0 else 'o'}{step})"


def _tokens(facts: dict[str, Any]) -> Html:
    units = facts["units"]
    largest = max(abs(unit["score"]) for unit in units)
    spans = [
        tag(
            "span",
            unit["unit"],
            style=f"background:{_shade(unit['score'], largest)};padding:.1em .15em;border-radius:.2em;margin:0 .1em",
            title=f"{unit['score']:+.4f}",
        )
        for unit in units
    ]
    return tag("p", [[span, " "] for span in spans], style="line-height:1.9;font-size:1.1em")


def _patches(shown: Shown) -> Html:
    assert shown.shape is not None
    rows, columns = shown.shape
    side = 280
    height, width = side / rows, side / columns
    units = shown.facts["units"]
    largest = max(abs(unit["score"]) for unit in units) or 1.0
    cells = [
        tag(
            "rect",
            tag("title", f"{unit['unit']}: {unit['score']:+.4f}"),
            x=float(place % columns * width),
            y=float(place // columns * height),
            width=float(width),
            height=float(height),
            fill="var(--one)" if unit["score"] > 0 else "var(--two)",
            fill_opacity=float(0.75 * abs(unit["score"]) / largest),
        )
        for place, unit in enumerate(units)
    ]
    image = tag(
        "image",
        href=shown.picture,
        width=side,
        height=side,
        preserveAspectRatio="none",
        style="image-rendering:pixelated",
    )
    plain = tag(
        "svg", image, width=side, height=side, viewBox=f"0 0 {side} {side}", role="img", aria_label="the picture"
    )
    shaded = tag(
        "svg", image, cells, width=side, height=side, viewBox=f"0 0 {side} {side}", role="img", aria_label="its patches"
    )
    return tag("p", plain, " ", shaded)


def _bars(facts: dict[str, Any], most: int) -> Html:
    units = sorted(facts["units"], key=lambda unit: -abs(unit["score"]))[:most]
    largest = abs(units[0]["score"]) or 1.0
    rows = [
        tag(
            "tr",
            tag("td", unit["unit"]),
            tag("td", f"{unit['score']:+.4f}", style="text-align:right"),
            tag(
                "td",
                tag(
                    "svg",
                    tag(
                        "rect",
                        width=float(200 * abs(unit["score"]) / largest),
                        height=12,
                        fill="var(--one)" if unit["score"] > 0 else "var(--two)",
                    ),
                    width=200,
                    height=12,
                    aria_hidden="true",
                ),
            ),
        )
        for unit in units
    ]
    more = len(facts["units"]) - len(units)
    return tag("div", tag("table", rows), tag("p", f"and {more:,} more with less", class_="quiet") if more else None)
