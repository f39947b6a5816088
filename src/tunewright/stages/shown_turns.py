"""One conversation as the model reads it, with what it learns to say in colour: seen before it is paid for."""

from __future__ import annotations

from itertools import groupby

from rich.text import Text

from tunewright.stages.console import Screen
from tunewright.tasks.chat_template import Rendered
from tunewright.tasks.chat_tokens import ChatEncoder

# Where there is no colour the marks say it.
OPENED, CLOSED = "⟦", "⟧"
LONGEST = 1500


def show_conversation(encoder: ChatEncoder, found: Rendered, screen: Screen) -> None:
    """Print it; what is trained stands in marks, and green where the terminal has colours."""
    text = Text()
    pairs = zip(found.ids, found.trained, strict=True)
    for trained, group in groupby(pairs, key=lambda pair: pair[1]):
        written = encoder.tokenizer.decode([token for token, _ in group])
        text.append(f"{OPENED}{written}{CLOSED}" if trained else written, style="bold green" if trained else "dim")
    if len(text) > LONGEST:
        text = text[:LONGEST].append(" …")
    count = sum(found.trained)
    screen.say(
        f"the first conversation, {len(found.ids):,} tokens; what is trained, {count:,} of them, stands in {OPENED} {CLOSED}:"
    )
    screen.console.print(text)
