"""Replace links to files outside docs/ by the file names, because the site does not contain them."""

import re
from typing import Any

OUTSIDE = re.compile(r"\[([^\]]*)\]\(\.\./([^)]+)\)")


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Replace `[text](../file)` by the text and the file name, or by the file name alone if the text repeats it."""
    return OUTSIDE.sub(
        lambda found: f"`{found[2]}`" if found[1] in found[2] else f"{found[1]} (`{found[2]}`)", markdown
    )
