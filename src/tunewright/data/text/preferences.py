"""Which of two answers is the better one, in the shapes in which people keep such pairs.

    prompt, chosen, rejected   {"prompt": "…", "chosen": "…", "rejected": "…"}; also question
    chosen, rejected           two conversations [{"role": "user", "content": "…"}, …] that begin alike

A cell of any of these columns may be a text or turns; turns are kept as JSON text.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from tunewright.data.text.conversations import Shape, Turn, is_turns, read_turns

CHOSEN, REJECTED = "chosen", "rejected"
PROMPTS = ("prompt", "question")


@dataclass(frozen=True)
class Preference:
    """Two answers to one question."""

    prompt: list[Turn]
    chosen: list[Turn]
    """What follows the prompt; an assistant's turn first."""
    rejected: list[Turn]


def recognise_preferences(names: Iterable[str]) -> Shape | None:
    """Return the shape that a table's columns have; None: they hold no pairs of answers."""
    known = set(names)
    if not {CHOSEN, REJECTED} <= known:
        return None
    for prompt in PROMPTS:
        if prompt in known:
            return Shape(name=f"{prompt}, chosen and rejected", columns=(prompt, CHOSEN, REJECTED))
    return Shape(name="chosen and rejected", columns=(CHOSEN, REJECTED))


def preference(row: dict[str, str | None]) -> Preference:
    """Return the pair of a row.

    Args:
        row: the shape's columns, the two answers last.

    Raises:
        ValueError: it holds none; the message says why.
    """
    *asked, chosen, rejected = row.values()
    prompt = [turn for cell in asked for turn in _said(cell, "user", "prompt")]
    answers = [_said(cell, "assistant", name) for cell, name in ((chosen, CHOSEN), (rejected, REJECTED))]
    # Where the answers repeat the prompt, or are whole conversations, what they share is the prompt.
    if prompt and all(turns[: len(prompt)] == prompt for turns in answers):
        answers = [turns[len(prompt) :] for turns in answers]
    alike = _alike(*answers)
    prompt, answers = [*prompt, *answers[0][:alike]], [turns[alike:] for turns in answers]
    if not prompt:
        raise ValueError("there is no prompt: the two conversations do not begin alike")
    for turns, name in zip(answers, (CHOSEN, REJECTED)):
        if not turns or turns[0].role != "assistant":
            raise ValueError(f"{name} has no answer of the assistant behind what the two share")
    empty = next((turn for turn in [*prompt, *answers[0], *answers[1]] if not turn.content.strip()), None)
    if empty is not None:
        raise ValueError(f"a turn of the {empty.role} is empty")
    return Preference(prompt, *answers)


def _alike(first: list[Turn], second: list[Turn]) -> int:
    """Return how many turns the two begin with alike.

    Raises:
        ValueError: they are the same.
    """
    found = 0
    for one, other in zip(first, second):
        if one != other:
            return found
        found += 1
    if len(first) == len(second):
        raise ValueError("chosen and rejected are the same")
    return found


def _said(cell: str | None, role: str, name: str) -> list[Turn]:
    """Return the turns of a cell; a text is one turn of `role`."""
    if not cell or not cell.strip():
        raise ValueError(f"{name} is empty")
    try:
        value: Any = json.loads(cell) if cell[:1] == "[" else None
    except (ValueError, RecursionError):
        value = None
    return read_turns(value) if is_turns(value) else [Turn(role, cell)]
