"""A conversation as the tokens that a model reads, and which of them it is to learn: what the assistant says, and the token
that ends its turn.

No template is trusted. The mask is found by writing the conversation up to each turn of the assistant, once as generation
will see it and once with the answer; whatever does not fit together is an error that says what is wrong. Templates are run by the
library in its sandbox.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from tunewright.data.text.conversations import Turn
from tunewright.tasks.text.known_templates import CHATML, PLAIN

START, END = "<|im_start|>", "<|im_end|>"


class TemplateMismatch(Exception):
    """A conversation and a template do not fit together; says what is wrong, and what would mend it."""

    def __init__(self, problem: str, fix: str) -> None:
        super().__init__(problem)
        self.fix = fix


@dataclass(frozen=True, kw_only=True)
class Rendered:
    """A conversation as tokens."""

    ids: list[int]
    trained: list[bool]
    """For each token whether the model learns to say it."""
    prompts: list[int]
    """How many tokens stand before each turn of the assistant."""
    whole: int
    """How many tokens there were before some were cut off."""


def default_template(tokenizer: Any) -> str:
    """Return what a tokenizer without a template gets; one that marks turns also ends with that mark from then on."""
    vocabulary = tokenizer.get_vocab()
    if START in vocabulary and END in vocabulary:
        tokenizer.eos_token = END
        return CHATML
    return PLAIN


def render(tokenizer: Any, turns: Sequence[Turn], ends: frozenset[int]) -> Rendered:
    """Return the tokens of a conversation and which of them are trained.

    Args:
        tokenizer: with a chat template; one that tells where in the text each token stands.
        ends: the tokens at which generation stops.

    Raises:
        TemplateMismatch: the two do not fit together.
    """
    whole = _text(tokenizer, turns, asked=False)
    _require_all_said(turns, whole)
    encoded = tokenizer(whole, add_special_tokens=False, return_offsets_mapping=True, verbose=False)
    ids, places = encoded["input_ids"], encoded["offset_mapping"]
    trained = [False] * len(ids)
    prompts: list[int] = []
    for index, turn in enumerate(turns):
        if turn.role != "assistant":
            continue
        asked = _text(tokenizer, turns[:index], asked=True)
        answered = _text(tokenizer, turns[: index + 1], asked=False)
        if not whole.startswith(answered.rstrip()):
            raise TemplateMismatch(
                "the template writes earlier turns in another way once later ones follow",
                "train on single turns, or take a template that leaves what was said as it is",
            )
        begin, stop = _span(asked, answered, turn)
        before = tokenizer(asked, add_special_tokens=False, verbose=False)["input_ids"]
        if ids[: len(before)] != before:
            raise TemplateMismatch(
                "the tokens before the answer are others in training than when the model is asked",
                "let the template end its question with a token of its own, such as a line break",
            )
        last = _end_of_turn(ids, places, stop, len(before), ends, tokenizer)
        for token in range(len(before), last + 1):
            trained[token] = True
        if not any(places[token][0] >= begin for token in range(len(before), last)):
            raise TemplateMismatch("no token of the answer is trained", "check the template's assistant turn")
        prompts.append(len(before))
    _require_one_beginning(ids, tokenizer)
    return Rendered(ids=ids, trained=trained, prompts=prompts, whole=len(ids))


def _text(tokenizer: Any, turns: Sequence[Turn], *, asked: bool) -> str:
    messages = [{"role": turn.role, "content": turn.content} for turn in turns]
    try:
        return tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=asked)
    except Exception as error:  # whatever a template raises
        raise TemplateMismatch(
            f"the template refuses the conversation: {str(error).strip().splitlines()[0] if str(error).strip() else error!r}",
            "change the roles or their order, or take another template",
        ) from None


def _require_all_said(turns: Sequence[Turn], whole: str) -> None:
    """Every turn must stand in the text, in order."""
    place = 0
    for turn in turns:
        found = whole.find(turn.content.strip(), place)
        if found < 0:
            raise TemplateMismatch(
                f"the template leaves out or changes what the {turn.role} says: {turn.content.strip()[:60]!r}",
                f"take a template that has a place for the {turn.role}, or leave such turns out",
            )
        place = found + len(turn.content.strip())


def _span(asked: str, answered: str, turn: Turn) -> tuple[int, int]:
    """Return where in the text the answer begins, and where its content ends."""
    if not answered.startswith(asked):
        raise TemplateMismatch(
            "the template asks for an answer in another way than it writes one",
            "add_generation_prompt must give the very beginning of the assistant's turn",
        )
    content = answered.find(turn.content.strip(), len(asked))
    between = answered[len(asked) : content]
    if between.strip():
        raise TemplateMismatch(
            f"the template does not open the assistant's turn when it is asked to: {between.strip()[:40]!r} would be trained",
            "add to it: {% if add_generation_prompt %} the beginning of an assistant's turn {% endif %}",
        )
    return content, content + len(turn.content.strip())


def _end_of_turn(
    ids: list[int], places: list[tuple[int, int]], stop: int, first: int, ends: frozenset[int], tokenizer: Any
) -> int:
    """Return the token that ends the turn: the first behind the content, blanks aside."""
    for token in range(first, len(ids)):
        if places[token][0] < stop:
            continue
        if ids[token] in ends:
            return token
        if tokenizer.decode([ids[token]]).strip():
            break
    else:
        token = len(ids)
    found = tokenizer.decode([ids[token]]) if token < len(ids) else "nothing"
    wanted = ", ".join(repr(tokenizer.decode([end])) for end in sorted(ends))
    raise TemplateMismatch(
        f"behind the answer stands {found!r}, but generation stops at {wanted}: the model would not learn to stop",
        "make the template end the assistant's turn with the tokenizer's eos_token, or set eos_token to what it ends with",
    )


def _require_one_beginning(ids: list[int], tokenizer: Any) -> None:
    begin = tokenizer.bos_token_id
    if begin is not None and ids[:2] == [begin, begin]:
        raise TemplateMismatch(
            "the text begins twice: the template writes the bos_token two times",
            "take one of them out of the template",
        )
