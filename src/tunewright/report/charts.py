"""The report's charts: pure functions from numbers to one <svg> element each.

Colours, fonts and line styles are classes that the page's style sheet defines (`style.py`), so that a chart follows the
page into the dark and onto paper. Lines differ by dash as well as by colour. What a mark stands for is in its <title>.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from tunewright.report.axes import Scale, Ticks, linear_ticks, log_ticks, padded, whole_ticks, width, wrapped
from tunewright.report.html import Html, tag

# A chart is drawn for about the width of a phone, and never shown much larger.
WIDTH, HEIGHT = 380, 224
LEFT, RIGHT, TOP, BOTTOM = 46, 10, 28, 38
FONT = 11.5
# A row of a whisker chart, the size and the height of its name's lines, and their room on the narrowest phone.
ROW, NAME_FONT, NAME_LINE, NAME_ROOM = 46, 12.5, 15, 328
# More points than this get no mark of their own.
MARKED = 40
# A range of more than this is shown on a logarithmic axis.
LOGARITHMIC = 15


@dataclass(frozen=True, kw_only=True)
class Line:
    """One line of a line chart; `look` is a class of the style sheet, one or two, or faint for single dots."""

    name: str
    points: Sequence[tuple[float, float]]
    look: str


@dataclass(frozen=True, kw_only=True)
class Whisker:
    """One row of a whisker chart."""

    name: str
    value: float
    low: float | None
    high: float | None
    shown: str
    """The value as text, with its interval."""
    strong: bool = False
    dots: Sequence[float] = ()
    """Single results, drawn as small dots."""
    note: str = ""


@dataclass(frozen=True, kw_only=True)
class Bin:
    """One point of a reliability chart: rows of about the same confidence."""

    confidence: float
    right: float
    """The share of them that is right."""
    rows: float
    title: str


def line_chart(
    lines: Sequence[Line],
    *,
    label: str,
    x_label: str,
    tick: Callable[[float, float], str],
    hint: Callable[[float, float], str],
    mark: tuple[float, str] | None = None,
    log_label: str | None = None,
) -> Html:
    """Lines over epochs.

    Args:
        label: what the chart shows, for those who cannot see it.
        tick: (value, step between ticks) -> the label on the y axis.
        hint: (x, y) -> the text that a mark shows when pointed at.
        mark: an x that is marked by a vertical line, and what stands beside it.
        log_label: given where the y axis may be logarithmic: the word for it.
    """
    plotted = [line for line in lines if line.points]
    # The faint dots of single steps scatter beyond the axis; after one epoch they are all there is to see.
    counted = [line for line in plotted if line.look != "faint" and len(line.points) > 1] or plotted
    strong = [y for line in counted for _, y in line.points]
    xs = [x for line in plotted for x, _ in line.points]
    logarithmic = log_label is not None and min(strong) > 0 and max(strong) / min(strong) > LOGARITHMIC
    if logarithmic:
        low, high = min(strong) / 1.2, max(strong) * 1.2
        ticks = log_ticks(low, high)
    else:
        low, high = padded(strong)
        if 0 < min(strong) < 0.5 * (high - low):
            low = 0.0
        ticks = linear_ticks(low, high)
    first, last = 0.0 if min(xs) < 1 else min(xs), max(xs)
    # A single line needs no legend, nor the room for it.
    top = TOP if len(plotted) > 1 else 10
    x = Scale(low=first, high=last if last > first else first + 1, start=LEFT, end=WIDTH - RIGHT)
    y = Scale(low=low, high=high, start=HEIGHT - BOTTOM, end=top, logarithmic=logarithmic)

    parts: list[Html] = _y_axis(y, ticks, tick)
    parts += _x_axis(x, whole_ticks(first, last), x_label, lambda value, _: f"{value:g}")
    if mark is not None:
        at, said = x(mark[0]), mark[1]
        left = at + 5 + width(said, FONT) > WIDTH - RIGHT
        # The words stand where the lines are not.
        lines_behind = [line for line in plotted if line.look != "faint"]
        high_up = any(y(py) < top + 30 for line in lines_behind for px, py in line.points if px >= mark[0])
        parts.append(tag("line", class_="mark", x1=at, x2=at, y1=float(top), y2=float(HEIGHT - BOTTOM)))
        words_at = HEIGHT - BOTTOM - 8 if high_up else top + 9
        parts.append(_text(at - 5 if left else at + 5, words_at, said, anchor="end" if left else "start"))
    for line in plotted:
        if line.look == "faint":
            parts.append(_cloud(line, x, y))
            continue
        parts.append(_path(line, x, y))
        if len(line.points) <= MARKED:
            parts += [
                tag("circle", tag("title", f"{line.name}, {hint(px, py)}"), class_=line.look, cx=x(px), cy=y(py), r=2.6)
                for px, py in line.points
            ]
    note = log_label if logarithmic and log_label else ""
    return _svg(WIDTH, HEIGHT, label, [*(_legend(plotted) if len(plotted) > 1 else []), *_note(note), *parts])


def whisker_chart(
    rows: Sequence[Whisker],
    *,
    label: str,
    tick: Callable[[float, float], str],
    line_at: float | None = None,
    off_scale: str = "",
) -> Html:
    """A dot with its interval for each row; its width follows the page, its letters keep their size.

    A row that lies so far off that the others could not be told apart is drawn as an arrow at the edge.

    Args:
        tick: (value, step between ticks) -> the label on the axis.
        line_at: a value marked by a vertical line through all rows.
        off_scale: what is said of a row that is off the scale.
    """
    low, high = _core_range(rows, line_at)
    ticks = linear_ticks(low, high, wanted=5)
    # In percent of the width: dots on the left, the numbers on the right.
    x = Scale(low=low, high=high, start=3, end=60)
    asides = [width(row.note, NAME_FONT) + 8 if row.note else 0 for row in rows]
    names = [wrapped(row.name, NAME_ROOM - aside, NAME_FONT) for row, aside in zip(rows, asides, strict=True)]
    foot = 26
    height = sum(ROW + NAME_LINE * (len(lines) - 1) for lines in names) + foot
    bottom = float(height - foot)

    def at(number: float) -> str:
        return f"{x(number):.2f}%"

    parts = [tag("line", class_="grid", x1=at(value), x2=at(value), y1=4.0, y2=bottom) for value in ticks.values]
    parts += [
        tag("text", tick(value, ticks.step), x=at(value), y=bottom + 17, text_anchor="middle") for value in ticks.values
    ]
    if line_at is not None:
        parts.append(tag("line", class_="mark", x1=at(line_at), x2=at(line_at), y1=4.0, y2=bottom))
    top = 0.0
    for row, lines in zip(rows, names, strict=True):
        middle = top + NAME_LINE * (len(lines) - 1) + 31.0
        title = tag("title", f"{row.name}: {row.shown}{f' ({row.note})' if row.note else ''}")
        looks = "one" if row.strong else "quiet"
        note = [tag("tspan", row.note, class_="aside", dx=8)] if row.note else []
        look = "name strong" if row.strong else "name"
        drawn = [
            tag("text", line, note if line is lines[-1] else None, class_=look, x=0, y=top + 16.0 + NAME_LINE * i)
            for i, line in enumerate(lines)
        ]
        if row.value < low or row.value > high:
            side, arrow = (2.0, "◂") if row.value < low else (60.5, "▸")
            drawn.append(
                tag(
                    "text",
                    f"{arrow} {off_scale}" if side < 50 else f"{off_scale} {arrow}",
                    class_="faint",
                    x=f"{side}%",
                    y=middle + 4,
                    text_anchor="start" if side < 50 else "end",
                )
            )
        else:
            if row.low is not None and row.high is not None:
                low_end, high_end = at(row.low), at(row.high)
                drawn.append(tag("line", class_=f"whisker {looks}", x1=low_end, x2=high_end, y1=middle, y2=middle))
                drawn += [
                    tag("line", class_=f"whisker {looks}", x1=end, x2=end, y1=middle - 4.5, y2=middle + 4.5)
                    for end in (low_end, high_end)
                ]
            drawn += [tag("circle", class_="dot", cx=at(dot), cy=middle, r=2.5) for dot in row.dots]
            drawn.append(tag("circle", class_=looks, cx=at(row.value), cy=middle, r=5.0))
        drawn.append(tag("text", row.shown, class_=look, x="100%", y=middle + 4, text_anchor="end"))
        parts.append(tag("g", title, drawn))
        top = middle + ROW - 31.0
    said = f"{label}. " + "; ".join(f"{row.name}: {row.shown}" for row in rows)
    return tag("svg", parts, class_="chart fluid", role="img", aria_label=said, width="100%", height=height)


def reliability_chart(
    before: Sequence[Bin],
    after: Sequence[Bin],
    *,
    label: str,
    x_label: str,
    y_label: str,
    names: tuple[str, str],
    tick: Callable[[float, float], str],
) -> Html:
    """Confidence against the share that is right, bin by bin; the diagonal is perfect.

    The area of a point is in proportion to the rows of its bin: small ones say little.
    """
    side, top = 244, TOP + 16
    height = top + side + BOTTOM
    total = LEFT + side + RIGHT + 14
    x = Scale(low=0, high=1, start=LEFT, end=LEFT + side)
    y = Scale(low=0, high=1, start=top + side, end=top)
    ticks = linear_ticks(0, 1, 5)
    parts = [tag("line", class_="grid", x1=x(0), x2=x(1), y1=y(value), y2=y(value)) for value in ticks.values] + [
        tag("line", class_="grid", x1=x(value), x2=x(value), y1=y(0), y2=y(1)) for value in ticks.values
    ]
    parts += [_text(x(value), y(0) + 16, tick(value, ticks.step), anchor="middle") for value in ticks.values]
    parts += [_text(LEFT - 7, y(value) + 4, tick(value, ticks.step), anchor="end") for value in ticks.values]
    parts.append(tag("line", class_="mark", x1=x(0), y1=y(0), x2=x(1), y2=y(1)))
    parts.append(_text(x(0.5), y(0) + 34, x_label, anchor="middle"))
    parts.append(_text(x(0), y(1) - 9, y_label))
    lines: list[Line] = []
    for name, points, look in zip(names, (before, after), ("two", "one"), strict=True):
        if not points:
            continue
        line = Line(name=name, points=[(point.confidence, point.right) for point in points], look=look)
        lines.append(line)
        parts.append(_path(line, x, y))
        most = max(point.rows for point in points)
        parts += [
            tag(
                "circle",
                tag("title", f"{name}: {point.title}"),
                class_=look,
                cx=x(point.confidence),
                cy=y(point.right),
                r=2 + 5 * math.sqrt(max(0, point.rows) / most),
            )
            for point in points
        ]
    return _svg(total, height, label, [*_legend(lines), *parts])


def bar_of_parts(parts: Sequence[tuple[str, int]], *, label: str) -> Html:
    """One bar divided in proportion, as wide as the page allows."""
    total = sum(count for _, count in parts) or 1
    drawn: list[Html] = []
    start = 0.0
    for index, (name, count) in enumerate(parts):
        share = 100 * count / total
        place = {"x": f"{start:.2f}%", "y": 0.0, "width": f"{share:.2f}%", "height": 10.0}
        drawn.append(tag("rect", tag("title", name), class_=f"part{index}", **place))
        start += share
    return tag("svg", drawn, class_="chart fluid bar", role="img", aria_label=label, width="100%", height=10)


def seal(passed: bool, label: str) -> Html:
    """A round seal with a tick, or with a cross."""
    sign = "M31 49l11 11 24-26" if passed else "M36 36l24 24M60 36L36 60"
    return tag(
        "svg",
        tag("circle", class_="rim", cx=48.0, cy=48.0, r=43.0),
        tag("circle", class_="ring", cx=48.0, cy=48.0, r=36.0),
        tag("path", d=sign),
        class_="seal good" if passed else "seal bad",
        role="img",
        aria_label=label,
        viewBox="0 0 96 96",
        width=84,
        height=84,
    )


def _core_range(rows: Sequence[Whisker], line_at: float | None) -> tuple[float, float]:
    """The range of the axis: that of all rows, unless the strong row and its nearest neighbour would have no room."""

    def ends(row: Whisker) -> list[float]:
        return [row.value, *(end for end in (row.low, row.high) if end is not None), *row.dots]

    extra = [line_at] if line_at is not None else []
    everything = [end for row in rows for end in ends(row)] + extra
    strong = [row for row in rows if row.strong]
    others = [row for row in rows if not row.strong]
    if not strong or len(others) < 2:
        return padded(everything)
    nearest = min(others, key=lambda row: abs(row.value - strong[0].value))
    core = [end for row in (*strong, nearest) for end in ends(row)] + extra
    span, whole = max(core) - min(core), max(everything) - min(everything)
    if span * 6 > whole:
        return padded(everything)
    # Whatever else lies within twice the span may stay.
    kept = [end for row in rows for end in ends(row) if min(core) - span <= row.value <= max(core) + span]
    return padded(kept + core)


def _svg(total: float, height: float, label: str, parts: Sequence[Html]) -> Html:
    return tag("svg", parts, class_="chart", role="img", aria_label=label, viewBox=f"0 0 {total:g} {height:g}")


def _text(x: float, y: float, content: str, *, anchor: str | None = None) -> Html:
    return tag("text", content, x=float(x), y=float(y), text_anchor=anchor if anchor != "start" else None)


def _path(line: Line, x: Scale, y: Scale) -> Html:
    points = " ".join(f"{x(px):.1f},{y(py):.1f}" for px, py in line.points)
    return tag("polyline", class_=line.look, points=points)


def _cloud(line: Line, x: Scale, y: Scale) -> Html:
    """Single dots in one path; what lies beyond the axis is left out."""
    inside = [(px, py) for px, py in line.points if y.low <= py <= y.high]
    return tag("path", class_="cloud", d="".join(f"M{x(px):.1f} {y(py):.1f}h0" for px, py in inside))


def _note(note: str) -> list[Html]:
    return [_text(WIDTH - RIGHT, HEIGHT - BOTTOM + 33, note, anchor="end")] if note else []


def _legend(lines: Sequence[Line]) -> list[Html]:
    parts: list[Html] = []
    at = float(LEFT)
    for line in lines:
        if line.look == "faint":
            parts.append(tag("path", class_="cloud", d=f"M{at + 3:g} 8h0M{at + 10:g} 12h0M{at + 17:g} 9h0"))
        else:
            parts.append(tag("line", class_=line.look, x1=at, x2=at + 20, y1=10.0, y2=10.0))
        parts.append(_text(at + 25, 14, line.name))
        at += 25 + width(line.name, FONT) + 18
    return parts


def _y_axis(y: Scale, ticks: Ticks, tick: Callable[[float, float], str]) -> list[Html]:
    ends = {"x1": float(LEFT), "x2": float(WIDTH - RIGHT)}
    parts = [tag("line", class_="grid", y1=y(value), y2=y(value), **ends) for value in ticks.values]
    return parts + [_text(LEFT - 7, y(value) + 4, tick(value, ticks.step), anchor="end") for value in ticks.values]


def _x_axis(x: Scale, ticks: Ticks, label: str, tick: Callable[[float, float], str]) -> list[Html]:
    bottom = HEIGHT - BOTTOM
    parts = [tag("line", class_="axis", x1=float(LEFT), x2=float(WIDTH - RIGHT), y1=float(bottom), y2=float(bottom))]
    parts += [_text(x(value), bottom + 16, tick(value, ticks.step), anchor="middle") for value in ticks.values]
    return [*parts, _text((LEFT + WIDTH - RIGHT) / 2, bottom + 33, label, anchor="middle")]


def thinned(points: Sequence[tuple[float, float]], limit: int = 400) -> list[tuple[float, float]]:
    """Every so-many-th point, so that at most `limit` are left."""
    return list(points[:: max(1, math.ceil(len(points) / limit))])
