"""One conversation as the model reads it, with what it learns to say in colour: seen before it is paid for."""

from __future__ import annotations

from itertools import groupby

from rich.text import Text

from tunewright.console import Console
from tunewright.tasks.language_model.chat_encoder import ChatEncoder, ChatExamples
from tunewright.tasks.language_model.chat_template import Rendered
from tunewright.tasks.language_model.preference_encoder import PreferenceExamples

# Where there is no colour the marks say it.
OPENED, CLOSED = "⟦", "⟧"
LONGEST = 1500


def show_first(encoder: ChatEncoder, examples: ChatExamples | PreferenceExamples, screen: Console) -> None:
    """Print the first conversation, or the two of the first pair."""
    if isinstance(examples, ChatExamples):
        show_conversation(encoder, examples.conversations[0], "the first conversation", screen)
        return
    chosen, rejected, *_ = examples.texts.conversations
    show_conversation(encoder, chosen, "the first pair, chosen", screen)
    show_conversation(encoder, rejected, "the first pair, rejected", screen)


def show_conversation(encoder: ChatEncoder, found: Rendered, title: str, screen: Console) -> None:
    """Print it; what is trained stands in marks, and green where the terminal has colours."""
    text = Text()
    pairs = zip(found.ids, found.trained, strict=True)
    for trained, group in groupby(pairs, key=lambda pair: pair[1]):
        written = encoder.tokenizer.decode([token for token, _ in group])
        text.append(f"{OPENED}{written}{CLOSED}" if trained else written, style="bold green" if trained else "dim")
    if len(text) > LONGEST:
        text = text[:LONGEST].append(" …")
    count = sum(found.trained)
    screen.info(f"{title}, {len(found.ids):,} tokens; what is trained, {count:,} of them, stands in {OPENED} {CLOSED}:")
    screen.console.print(text)
