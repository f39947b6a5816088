"""Pictures and sounds from elsewhere, made fit for the page: the network's SVG, and the images and recordings of mistakes."""

from __future__ import annotations

import re
from xml.etree import ElementTree

from tunewright.report.html import Html, plain, tag

SVG = "http://www.w3.org/2000/svg"

# What a drawing needs, and nothing that could run, load or link.
ELEMENTS = re.compile(
    "svg|g|defs|title|desc|path|rect|circle|ellipse|line|polyline|polygon|text|tspan|pattern|marker|linearGradient"
    "|radialGradient|stop|clipPath"
)
ATTRIBUTES = re.compile(
    "id|class|x|y|x1|y1|x2|y2|cx|cy|r|rx|ry|dx|dy|d|points|width|height|viewBox|transform|opacity|style|role|offset"
    "|fill|fill-opacity|stroke|stroke-(?:opacity|width|dasharray|linecap|linejoin)|stop-(?:color|opacity)|clip-path"
    "|font-(?:family|size|weight|style)|text-anchor|dominant-baseline|letter-spacing|marker-(?:start|mid|end)"
    "|markerWidth|markerHeight|refX|refY|orient|patternUnits|patternTransform|preserveAspectRatio|aria-label(?:ledby)?"
)
# A style or a colour may refer to something in the drawing itself, url(#name), and to nothing else.
_LOADS = re.compile(r"url\((?!#)|@import|expression|javascript:|position|\\", re.IGNORECASE)
_REFERENCE = re.compile(r"url\(#([\w-]+)\)")

_SOUND = re.compile(r"data:audio/(?:ogg|wav|mpeg);base64,[A-Za-z0-9+/]+={0,2}")
_IMAGE = re.compile(r"data:image/(?:png|jpeg|gif|webp);base64,[A-Za-z0-9+/]+={0,2}")
# The largest image, in characters of its data URI, that goes on the page.
LARGEST_IMAGE = 60_000
LARGEST_SOUND = 300_000


def clean_svg(drawing: str, prefix: str) -> Html | None:
    """An SVG drawing reduced to shapes and text, its names made unique by a prefix; None when it is no SVG."""
    # Without a document type there are no entities, and nothing that could be expanded without end.
    if "<!" in drawing:
        return None
    try:
        root = ElementTree.fromstring(drawing)
    except (ElementTree.ParseError, ValueError):
        return None
    return _copy(root, prefix) if root.tag == f"{{{SVG}}}svg" else None


def _copy(element: ElementTree.Element, prefix: str) -> Html | None:
    name = element.tag.removeprefix(f"{{{SVG}}}")
    if not ELEMENTS.fullmatch(name):
        return None
    attributes = {
        key.replace("-", "_"): _attribute(key, value, prefix)
        for key, value in element.attrib.items()
        if ATTRIBUTES.fullmatch(key) and not _LOADS.search(value)
    }
    children: list[object] = [element.text]
    for child in element:
        children += [_copy(child, prefix), child.tail]
    return tag(name, children, **attributes)


def _attribute(key: str, value: str, prefix: str) -> str:
    if key in ("id", "aria-labelledby"):
        return f"{prefix}-{value}"
    return _REFERENCE.sub(lambda found: f"url(#{prefix}-{found[1]})", plain(value))


def image_uri(value: object) -> str | None:
    """A picture's data URI; None for anything that is not one, or too large for a page."""
    if isinstance(value, str) and len(value) <= LARGEST_IMAGE and _IMAGE.fullmatch(value):
        return value
    return None


def sound_uri(value: object) -> str | None:
    """A recording's data URI; None for anything that is not one, or too large for a page."""
    if isinstance(value, str) and len(value) <= LARGEST_SOUND and _SOUND.fullmatch(value):
        return value
    return None
