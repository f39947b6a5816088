"""Markup that is safe by construction: whatever is not `Html` already is escaped when it is put into a tag."""

from __future__ import annotations

import html
import re
from collections.abc import Iterable

# Elements of HTML without content or end tag, and elements of SVG that are closed at once when they are empty.
VOID = frozenset({"br", "img", "meta"})
SHAPES = frozenset({"circle", "line", "path", "polyline", "rect"})

# What XML and HTML do not allow in text (controls, lone surrogates, non-characters), and the controls that turn the
# direction of writing around, by which a file name can look like another one.
_UNFIT = re.compile("[^\t\n\r\x20-\x7e\xa0-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]|[\u202a-\u202e\u2066-\u2069]")


class Html(str):
    """Text that is markup already, and goes on the page as it is."""

    __slots__ = ()


def plain(value: object) -> str:
    """`value` as text that a page can hold: what cannot be shown becomes �."""
    return _UNFIT.sub("�", str(value))


def text(value: object) -> Html:
    """`value` escaped, for content and for attributes; `Html` stays as it is."""
    return value if isinstance(value, Html) else Html(html.escape(plain(value)))


def join(parts: Iterable[object], between: str = "") -> Html:
    """The parts one after the other, each escaped unless it is `Html`; None is passed over."""
    return Html(text(between).join(_markup(part) for part in parts if part is not None))


def tag(name: str, /, *children: object, **attributes: object) -> Html:
    """One element with its children; a list stands for its members, None for nothing.

    An attribute that is None or False is left out, one that is True has no value. `class_` and `for_` lose their
    underscore, the other underscores become hyphens; floats are rounded to two digits, as coordinates need no more.
    """
    pairs = "".join(
        f" {_attribute_name(key)}" + ("" if value is True else f'="{_attribute(value)}"')
        for key, value in attributes.items()
        if value is not None and value is not False
    )
    if name in VOID:
        return Html(f"<{name}{pairs}>")
    content = join(children)
    if not content and name in SHAPES:
        return Html(f"<{name}{pairs}/>")
    return Html(f"<{name}{pairs}>{content}</{name}>")


def _markup(part: object) -> str:
    return join(part) if isinstance(part, list | tuple) else text(part)  # pyright: ignore[reportUnknownArgumentType]


def _attribute_name(key: str) -> str:
    return key.rstrip("_").replace("_", "-")


def _attribute(value: object) -> str:
    return f"{value:.2f}".rstrip("0").rstrip(".") if isinstance(value, float) else text(value)
