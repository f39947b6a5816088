"""Conversations in the shapes in which people keep them, all read as turns: who says what.

    messages             {"messages": [{"role": "user", "content": "…"}, …]}
    prompt, completion   {"prompt": "…", "completion": "…"}; also response, answer
    alpaca               {"instruction": "…", "input": "…", "output": "…"}
    sharegpt             {"conversations": [{"from": "human", "value": "…"}, …]}

A cell with turns is kept as JSON text.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

ROLES = ("system", "user", "assistant", "tool")
# What others call the roles.
NAMES = {
    "human": "user",
    "gpt": "assistant",
    "bot": "assistant",
    "model": "assistant",
    "chatgpt": "assistant",
    "prompter": "user",
    "function": "tool",
    "observation": "tool",
}


@dataclass(frozen=True)
class Turn:
    """One thing that somebody says."""

    role: str
    """One of ROLES."""
    content: str


@dataclass(frozen=True, kw_only=True)
class Shape:
    """How the rows of a table hold their conversations."""

    name: str
    columns: tuple[str, ...]
    """Those that are read, in the order that the shape's name has them."""


def recognise(names: Iterable[str]) -> Shape | None:
    """Return the shape that a table's columns have; None: none of those that are known."""
    known = set(names)
    if "messages" in known:
        return Shape(name="messages", columns=("messages",))
    if "conversations" in known:
        return Shape(name="sharegpt", columns=("conversations",))
    if {"instruction", "output"} <= known:
        return Shape(name="alpaca", columns=("instruction", *(name for name in ("input",) if name in known), "output"))
    for answer in ("completion", "response", "answer"):
        for question in ("prompt", "question"):
            if {question, answer} <= known:
                return Shape(name="prompt and completion", columns=(question, answer))
    return None


def is_turns(value: object) -> bool:
    """Return whether a value of JSON is a list of turns."""
    return (
        isinstance(value, list)
        and bool(value)
        and all(isinstance(entry, dict) and _said(entry) is not None for entry in value)
    )


def conversation(shape: Shape, row: dict[str, str | None]) -> list[Turn]:
    """Return the turns of a row, an assistant's among them.

    Args:
        row: the shape's columns.

    Raises:
        ValueError: it holds none; the message says why.
    """
    if shape.name in ("messages", "sharegpt"):
        turns = _turns(row[shape.columns[0]])
    else:
        *asked, answer = (row[name] for name in shape.columns)
        question = "\n\n".join(text for text in asked if text)
        if not question or not answer:
            raise ValueError("the question or the answer is empty")
        turns = [Turn("user", question), Turn("assistant", answer)]
    if not any(turn.role == "assistant" for turn in turns):
        raise ValueError("there is no turn of the assistant")
    empty = next((turn for turn in turns if not turn.content.strip()), None)
    if empty is not None:
        raise ValueError(f"a turn of the {empty.role} is empty")
    return turns


def _turns(cell: str | None) -> list[Turn]:
    try:
        entries = json.loads(cell or "")
    except (ValueError, RecursionError):
        raise ValueError("the cell is no JSON") from None
    if not is_turns(entries):
        raise ValueError('the cell is no list of turns such as {"role": "user", "content": "…"}')
    return read_turns(entries)


def read_turns(entries: list[dict[str, Any]]) -> list[Turn]:
    """Read the turns of what `is_turns`. Raises ValueError for a role that nobody has."""
    turns: list[Turn] = []
    for entry in entries:
        role, content = _said(entry) or ("", "")
        role = NAMES.get(role.lower(), role.lower())
        if role not in ROLES:
            raise ValueError(f"the role {role!r} is unknown; known are {', '.join(ROLES)}")
        turns.append(Turn(role, content))
    return turns


def _said(entry: dict[str, Any]) -> tuple[str, str] | None:
    for who, what in (("role", "content"), ("from", "value")):
        if isinstance(entry.get(who), str) and isinstance(entry.get(what), str):
            return entry[who], entry[what]
    return None
