"""Whether a chat template writes conversations within bounds: a trial, for a child process. It may loop or grow without end."""

from __future__ import annotations

from typing import Any

# Characters that a template may write for one of the conversation.
MOST_GROWTH, MOST_AROUND = 20, 100_000
SAID = "The quick brown fox jumps over the lazy dog; 12,345 times, 你好! <b>{{ x }}</b>\n\n" * 12
ROLES = (
    ("user",),
    ("user", "assistant"),
    ("system", "user", "assistant"),
    ("system", *("user", "assistant") * 10, "user"),
)


def try_template(given: dict[str, Any]) -> None:
    """Write conversations of several shapes. A template may refuse one: what it refuses is said when it is used.

    Args:
        given: `template`, and the `tokens` that it may name.

    Raises:
        ValueError: it writes far more than was said.
    """
    from transformers.utils.chat_template_utils import render_jinja_template

    for roles in ROLES:
        for asked in (False, True):
            messages = [{"role": role, "content": SAID} for role in roles]
            written: Any = None
            try:
                written, _ = render_jinja_template(
                    [messages], chat_template=given["template"], add_generation_prompt=asked, **given["tokens"]
                )
            except MemoryError:
                raise
            except Exception:
                continue
            length = sum(map(len, written))
            if length > MOST_GROWTH * len(SAID) * len(roles) + MOST_AROUND:
                raise ValueError(f"it writes {length:,} characters for {len(SAID) * len(roles):,}")
