"""The picture of a network: a hand-written SVG that follows the page's colours, light or dark."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

from tunewright.models.layer_table import LayerRow

WIDTH, HEIGHT, GAP, COLUMNS = 172, 92, 30, 4


@dataclass(frozen=True)
class Box:
    """One box of the picture: a block, or several equal ones folded into one."""

    title: str
    shape: str
    parameters: int
    times: int
    frozen: bool
    head: bool


def network_svg(rows: Sequence[LayerRow], *, title: str, frozen: frozenset[str] | set[str] = frozenset()) -> str:
    """Return boxes from the input to the outputs, row by row, each with its shape and parameters.

    Blocks that follow each other and make the same shape with as many parameters are folded into one "×n". Frozen ones
    are hatched and say so; the head stands out by its frame.

    Args:
        rows: the layer table.
        frozen: names of frozen blocks.
    """
    boxes = _fold(rows, frozen)
    columns = min(COLUMNS, len(boxes))
    lines = -(-len(boxes) // columns)
    width, height = columns * (WIDTH + GAP) - GAP + 16, lines * (HEIGHT + GAP) - GAP + 16
    drawn = "".join(_draw(box, index, columns, len(boxes)) for index, box in enumerate(boxes))
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" role="img" aria-label="{escape(title)}" class="network" '
        f'style="max-width:{width}px" font-family="system-ui, sans-serif" fill="currentColor">'
        f"<title>{escape(title)}</title>"
        '<defs><pattern id="frozen" width="7" height="7" patternUnits="userSpaceOnUse" patternTransform="rotate(45)">'
        '<line x1="0" y1="0" x2="0" y2="7" stroke="currentColor" stroke-opacity=".16" stroke-width="3"/></pattern>'
        '<marker id="arrow" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" markerHeight="7" orient="auto">'
        '<path d="M0 1 L7 4 L0 7" fill="none" stroke="currentColor" stroke-opacity=".6"/></marker></defs>'
        f"{drawn}</svg>"
    )


def _fold(rows: Sequence[LayerRow], frozen: frozenset[str] | set[str]) -> list[Box]:
    boxes: list[Box] = []
    for row in rows:
        part, _, name = row.block.partition(".")
        # resnet blocks carry their number in their name: "stage1 block2"; a transformer's "encoder.layer.2".
        title = re.sub(r" ?block\d+$", " blocks", row.kind) if re.search(r"block\d+$", name) else row.kind
        in_stack = "blocks" in title or re.search(r"\.\d+$", name) is not None
        shape = " × ".join(map(str, row.output_shape))
        box = Box(title, shape, row.parameters, 1, row.block in frozen, part == "head")
        last = boxes[-1] if boxes else None
        if last is not None and in_stack and (last.title, last.shape, last.frozen) == (title, shape, box.frozen):
            boxes[-1] = Box(title, shape, last.parameters + row.parameters, last.times + 1, last.frozen, last.head)
        else:
            boxes.append(box)
    return boxes


def _draw(box: Box, index: int, columns: int, count: int) -> str:
    column, line = index % columns, index // columns
    x, y = 8 + column * (WIDTH + GAP), 8 + line * (HEIGHT + GAP)
    title = box.title if len(box.title) <= 22 else box.title[:21] + "…"
    times = (
        f'<text x="{x + WIDTH - 10}" y="{y + 22}" text-anchor="end" font-size="13">×{box.times}</text>'
        if box.times > 1
        else ""
    )
    state = " · frozen" if box.frozen and box.parameters else ""
    lines = [
        f'<rect x="{x}" y="{y}" width="{WIDTH}" height="{HEIGHT}" rx="8" fill="currentColor" fill-opacity=".045" '
        f'stroke="currentColor" stroke-opacity="{".85" if box.head else ".35"}" stroke-width="{1.8 if box.head else 1}"/>',
        f'<rect x="{x}" y="{y}" width="{WIDTH}" height="{HEIGHT}" rx="8" fill="url(#frozen)"/>' if state else "",
        f'<text x="{x + 10}" y="{y + 23}" font-size="13" font-weight="600">{escape(title)}</text>{times}',
        f'<text x="{x + 10}" y="{y + 48}" font-size="13">{escape(box.shape)}</text>',
        f'<text x="{x + 10}" y="{y + 74}" font-size="11.5" fill-opacity=".75">{_short(box.parameters)}{state}</text>',
    ]
    if index + 1 < count:
        lines.append(_arrow(x, y, last_in_line=column == columns - 1, columns=columns))
    return "".join(lines)


def _arrow(x: int, y: int, *, last_in_line: bool, columns: int) -> str:
    middle = y + HEIGHT / 2
    if not last_in_line:
        path = f"M{x + WIDTH + 3} {middle} H{x + WIDTH + GAP - 3}"
    else:
        down, start = y + HEIGHT + GAP / 2, 8 + WIDTH / 2
        path = f"M{x + WIDTH / 2} {y + HEIGHT + 2} V{down} H{start} V{y + HEIGHT + GAP - 3}"
    return f'<path d="{path}" fill="none" stroke="currentColor" stroke-opacity=".6" marker-end="url(#arrow)"/>'


def _short(parameters: int) -> str:
    if not parameters:
        return "no parameters"
    for size, unit in ((1e9, " G"), (1e6, " M"), (1e4, " k")):
        if parameters >= size:
            scaled = parameters / (size if size > 1e4 else 1e3)
            return f"{scaled:.3g}{unit} parameters"
    return f"{parameters:,} parameters"
