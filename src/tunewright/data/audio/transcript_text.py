"""What is said, as it is compared and learned."""

from __future__ import annotations

import re
import unicodedata

# Chinese characters and Japanese syllables: each is a word of its own, as nobody puts blanks between words there.
_ALONE = re.compile("([\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff])")


def spoken(text: str) -> str:
    """Normalize a text: composed characters, lower case, single blanks."""
    return " ".join(unicodedata.normalize("NFC", text).lower().split())


def spoken_words(text: str) -> list[str]:
    """Return its words: what blanks divide, and each Chinese character (so that a word error rate has a meaning for both)."""
    return _ALONE.sub(r" \1 ", text).split()


def stands_alone(letter: str) -> bool:
    """Return whether a letter is a word."""
    return _ALONE.fullmatch(letter) is not None
