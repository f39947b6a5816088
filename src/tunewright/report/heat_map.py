"""The confusion matrix as a picture: blue where the class was right, orange where it was not."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from tunewright.report.axes import cut, width
from tunewright.report.html import Html, tag

# Shades of each colour, from pale to strong; the style sheet gives them colours on which text can be read.
LEVELS = 6
FONT = 11.5
# The strongest orange stands for at least this share of a row.
FAINTEST = 0.1
# Up to so many classes each cell says how many rows it holds.
NUMBERED = 20
# A matrix of more classes than this would be a grey mist.
LARGEST = 200


def heat_map(
    labels: Sequence[str],
    counts: Sequence[Sequence[int]],
    *,
    label: str,
    row_label: str,
    column_label: str,
    hint: Callable[[int, int], str],
) -> Html:
    """The matrix, a row for each right class, a column for each predicted one.

    Blue deepens with the cell's share of its row; orange with the root of it, up to that of the most frequent mistake,
    so that rare mistakes are seen at all.

    Args:
        counts: [K, K].
        label: what it shows, for those who cannot see it.
        hint: (row, column) -> what a cell says when pointed at; for up to 20 classes.
    """
    if len(labels) > NUMBERED:
        return _dense_map(counts, label=label, row_label=row_label, column_label=column_label)
    digits = max(len(f"{count}") for row in counts for count in row)
    cell = max(26 if len(labels) <= 12 else 24, 8 + 6.6 * digits)
    names = [cut(name, 104, FONT) for name in labels]
    longest = max(width(name, FONT) for name in names)
    upright = longest > cell - 2
    left, top = 24 + longest, 24 + (longest if upright else 14)
    side = cell * len(labels)
    parts = [
        tag("text", column_label, class_="faint", x=left + side / 2, y=12.0, text_anchor="middle"),
        tag(
            "text",
            row_label,
            class_="faint",
            text_anchor="middle",
            transform=f"translate(12 {top + side / 2:.1f}) rotate(-90)",
        ),
    ]
    for index, (name, whole) in enumerate(zip(names, labels, strict=True)):
        middle = (index + 0.5) * cell
        parts.append(tag("text", tag("title", whole), name, x=left - 6, y=top + middle + 4, text_anchor="end"))
        place = f"translate({left + middle + 4:.1f} {top - 6:.1f}) rotate(-90)" if upright else None
        at = {"transform": place} if upright else {"x": left + middle, "y": top - 6, "text_anchor": "middle"}
        parts.append(tag("text", tag("title", whole), name, **at))
    shade = _shades(counts)
    for row, found in enumerate(counts):
        for column, count in enumerate(found):
            x, y = left + column * cell, top + row * cell
            if not count:
                parts.append(tag("rect", class_="empty", x=x, y=y, width=cell - 1.5, height=cell - 1.5))
                continue
            parts.append(
                tag(
                    "g",
                    tag("title", hint(row, column)),
                    tag("rect", x=x, y=y, width=cell - 1.5, height=cell - 1.5),
                    tag("text", count, x=x + cell / 2 - 0.75, y=y + cell / 2 + 3.5, text_anchor="middle"),
                    class_=f"cell {shade(row, column)}",
                )
            )
    return _svg(left + side + 4, top + side + 4, label, parts)


def _dense_map(counts: Sequence[Sequence[int]], *, label: str, row_label: str, column_label: str) -> Html:
    """Many classes: one path for each shade, no numbers."""
    cell = max(2.0, min(8.0, 560 / len(counts)))
    shade = _shades(counts)
    paths: dict[str, list[str]] = {}
    for row, found in enumerate(counts):
        for column, count in enumerate(found):
            if count:
                paths.setdefault(shade(row, column), []).append(f"M{column} {row}h1v1h-1z")
    side = cell * len(counts)
    parts = [
        tag("text", column_label, class_="faint", x=18 + side / 2, y=12.0, text_anchor="middle"),
        tag(
            "text",
            row_label,
            class_="faint",
            text_anchor="middle",
            transform=f"translate(12 {18 + side / 2:.1f}) rotate(-90)",
        ),
        tag("rect", class_="frame", x=18.0, y=18.0, width=side, height=side),
        tag(
            "g",
            [tag("path", class_=f"cell {look}", d="".join(found)) for look, found in sorted(paths.items())],
            transform=f"translate(18 18) scale({cell:.3f})",
        ),
    ]
    return _svg(side + 20, side + 20, label, parts)


def _shades(counts: Sequence[Sequence[int]]) -> Callable[[int, int], str]:
    """The class of each cell: b1 to b6 on the diagonal, o1 to o6 beside it."""
    shares = [[count / (sum(row) or 1) for count in row] for row in counts]
    worst = max((share for i, row in enumerate(shares) for j, share in enumerate(row) if i != j), default=0.0)
    # A single mistake among hundreds of rows must not glow.
    strongest = max(worst, FAINTEST)

    def shade(row: int, column: int) -> str:
        share = shares[row][column]
        strength = share if row == column else math.sqrt(share / strongest)
        return ("b" if row == column else "o") + str(min(LEVELS, max(1, math.ceil(strength * LEVELS))))

    return shade


def _svg(total: float, height: float, label: str, parts: list[Html]) -> Html:
    return tag(
        "svg",
        parts,
        class_="chart matrix",
        role="img",
        aria_label=label,
        viewBox=f"0 0 {total:.0f} {height:.0f}",
        style=f"max-width:{total * 1.15:.0f}px;min-width:{min(total, 300) if total < 420 else total * 0.8:.0f}px",
    )
