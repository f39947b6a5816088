"""The look of the report: two palettes, and one style sheet (style.css) that is written in their names.

Text reaches WCAG AA (4.5 : 1) against what it stands on, lines and marks 3 : 1, in both palettes (tested). Blue and
orange are told apart with every kind of colour blindness, and never carry a meaning alone.
"""

from __future__ import annotations

from pathlib import Path

LIGHT = {
    "paper": "#fcfcfa",
    "panel": "#f3f3ee",
    "ink": "#1b1d22",
    "quiet": "#585c65",
    "rule": "#d9d9d2",
    "line": "#85888f",
    "one": "#0b5cad",
    "two": "#b4490a",
    "good": "#17683a",
    "bad": "#a8261b",
    # the shades of the confusion matrix: the first three carry ink, the others paper
    "b1": "#e2ecf6",
    "b2": "#c2d8ed",
    "b3": "#99bfe1",
    "b4": "#2a6aa9",
    "b5": "#185290",
    "b6": "#0b3a6e",
    "o1": "#fbe8da",
    "o2": "#f6ceb0",
    "o3": "#edb081",
    "o4": "#b0500f",
    "o5": "#8d3d08",
    "o6": "#682b04",
}

DARK = {
    "paper": "#15161a",
    "panel": "#1e2026",
    "ink": "#e9e9e5",
    "quiet": "#a7aab2",
    "rule": "#33363d",
    "line": "#7c8089",
    "one": "#7ab5f2",
    "two": "#f0985a",
    "good": "#6fcf97",
    "bad": "#ff8f85",
    "b1": "#1c2a3b",
    "b2": "#243c58",
    "b3": "#2d4f76",
    "b4": "#74aee6",
    "b5": "#98c5ef",
    "b6": "#bfdcf6",
    "o1": "#35261b",
    "o2": "#523522",
    "o3": "#6f452b",
    "o4": "#eb9a5f",
    "o5": "#f2b487",
    "o6": "#f8d3b6",
}

_RULES = Path(__file__).with_name("style.css")


def style_sheet() -> str:
    """The CSS: light on screen and on paper, dark where the reader asked for it."""
    return f":root{{color-scheme:light;{_variables(LIGHT)}}}\n{_shades()}{_RULES.read_text(encoding='utf-8')}" + (
        f"@media screen and (prefers-color-scheme:dark){{:root{{color-scheme:dark;{_variables(DARK)}}}}}\n"
    )


def _variables(palette: dict[str, str]) -> str:
    return ";".join(f"--{name}:{colour}" for name, colour in palette.items())


def _shades() -> str:
    """The cells of the confusion matrix: their colour, and that of the number on it."""
    return "".join(
        f".{name}{level}{{fill:var(--{name}{level})}}.chart .{name}{level} text{{fill:var(--{on_shade(level)})}}\n"
        for name in "bo"
        for level in range(1, 7)
    )


def on_shade(level: int) -> str:
    """The colour of a number on the shade of this level."""
    return "ink" if level < 4 else "paper"
