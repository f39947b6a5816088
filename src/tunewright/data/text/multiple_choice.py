"""Questions with several answers of which one is right, as people keep them: a table with the columns

question   what is asked (also prompt)
choices    the answers: a list, in a text cell as JSON
answer     the right one: its text, its letter (A is the first), or its number, counted from 0
"""

from __future__ import annotations

import json
import string
from collections.abc import Iterable
from dataclasses import dataclass

QUESTIONS = ("question", "prompt")
CHOICES, ANSWER = "choices", "answer"


@dataclass(frozen=True)
class Question:
    """A question, its possible answers, and the place of the right one among them."""

    text: str
    choices: list[str]
    answer: int


def recognise_questions(names: Iterable[str]) -> tuple[str, str, str] | None:
    """Return the columns with question, choices and answer; None: the table has no questions with choices."""
    known = set(names)
    asked = next((name for name in QUESTIONS if name in known), None)
    return (asked, CHOICES, ANSWER) if asked and {CHOICES, ANSWER} <= known else None


def question(asked: object, choices: object, answer: object) -> Question:
    """Return the question of a row's three cells.

    Raises:
        ValueError: it holds none; the message says why.
    """
    if not isinstance(asked, str) or not asked.strip():
        raise ValueError("the question is empty")
    texts = _texts(choices)
    if len(texts) < 2 or len(set(texts)) < len(texts) or not all(text.strip() for text in texts):
        raise ValueError("the choices are not two or more different texts")
    if answer is None:
        raise ValueError("it is not said which answer is right")
    if isinstance(answer, float) and answer.is_integer():
        answer = int(answer)
    return Question(asked, texts, _place(str(answer).strip(), texts))


def _texts(choices: object) -> list[str]:
    if isinstance(choices, str):
        try:
            choices = json.loads(choices)
        except (ValueError, RecursionError):
            choices = None
    if not isinstance(choices, list):
        raise ValueError("the choices are no list")
    return [str(choice) for choice in choices]


def _place(answer: str, texts: list[str]) -> int:
    meant = {texts.index(answer)} if answer in texts else set[int]()
    if answer.isdecimal() and int(answer) < len(texts):
        meant.add(int(answer))
    if len(answer) == 1 and answer in string.ascii_uppercase[: len(texts)]:
        meant.add(string.ascii_uppercase.index(answer))
    if not meant:
        raise ValueError(f"the right answer {answer!r} is not one of the choices, nor the letter or number of one")
    if len(meant) > 1:
        raise ValueError(f"the right answer {answer!r} names one choice and is the letter or number of another")
    return meant.pop()
