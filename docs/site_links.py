"""For the site: what a page says of files outside docs/ becomes their name, for the site does not have them."""

import re
from typing import Any

OUTSIDE = re.compile(r"\[([^\]]*)\]\(\.\./([^)]+)\)")


def on_page_markdown(markdown: str, **_: Any) -> str:
    """`[text](../file)` becomes the text with the file's name; where the text is the name already, that alone."""
    return OUTSIDE.sub(
        lambda found: f"`{found[2]}`" if found[1] in found[2] else f"{found[1]} (`{found[2]}`)", markdown
    )
