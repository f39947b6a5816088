"""Which of several answers a model that writes finds the likeliest: log p(answer | question), nothing is generated.

As in the usual harnesses for language models: the answer stands behind the question after a space (none where a script has
none between words); a model that was taught to talk gets the question as a user's turn and answers in its own. `accuracy` takes
the sum over the answer's tokens; longer answers have the smaller sums, so `accuracy_per_byte` divides by the answer's UTF-8
bytes first (Gao et al. 2021, "Multiple choice normalization in LM evaluation").
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pyarrow as pa
import torch

from tunewright.data.text.conversations import Turn
from tunewright.data.text.multiple_choice import Question, question, recognise_questions
from tunewright.data.text.quality_filters import is_unspaced
from tunewright.errors import DataError
from tunewright.models.core.network import Network
from tunewright.tasks.language_model.chat_encoder import ChatEncoder
from tunewright.tasks.language_model.chat_evaluation import token_sums
from tunewright.tasks.language_model.chat_template import Rendered, TemplateMismatch, render
from tunewright.tasks.language_model.encoder import CausalTextEncoder


def read_questions(table: pa.Table, source: str) -> list[Question]:
    """Read the questions of a table. Raises DataError, which names the row, where there is none."""
    columns = recognise_questions(table.column_names)
    assert columns is not None
    found: list[Question] = []
    for number, *cells in zip(table["_row"].to_pylist(), *(table[name].to_pylist() for name in columns), strict=True):
        try:
            found.append(question(*cells))
        except ValueError as error:
            raise DataError(
                str(error),
                file=source,
                place=f"row {number}",
                found=", ".join(map(str, cells)),
                expected="a question, its choices as a list, and the right one's text, letter or number from 0",
                fix="correct or remove the row",
            ) from None
    return found


def choice_scores(network: Network, encoder: CausalTextEncoder, questions: list[Question]) -> np.ndarray:
    """Return [N, C] the log probability of each choice; −∞ where a question has fewer than C."""
    size = encoder.max_length + 1
    whole = [_behind(encoder, asked, choice) for asked in questions for choice in asked.choices]
    # What does not fit loses its beginning: the answer must stay.
    kept = [replace(entry, ids=entry.ids[-size:], trained=entry.trained[-size:]) for entry in whole]
    outputs, _ = token_sums(network, kept, torch.arange(len(kept)))
    scores = np.full((len(questions), max(len(asked.choices) for asked in questions)), -np.inf)
    place = 0
    for row, asked in enumerate(questions):
        count = len(asked.choices)
        scores[row, :count] = -outputs[place : place + count, 0]
        place += count
    return scores


def per_byte(scores: np.ndarray, questions: list[Question]) -> np.ndarray:
    """Scores divided by the UTF-8 bytes of their choices."""
    lengths = np.ones(scores.shape)
    for row, asked in enumerate(questions):
        lengths[row, : len(asked.choices)] = [len(choice.encode()) for choice in asked.choices]
    return scores / lengths


def _behind(encoder: CausalTextEncoder, asked: Question, choice: str) -> Rendered:
    """Return the tokens of question and answer, of which the answer's count."""
    if isinstance(encoder, ChatEncoder):
        try:
            return render(encoder.tokenizer, [Turn("user", asked.text), Turn("assistant", choice)], encoder.ends)
        except TemplateMismatch as error:
            raise DataError(str(error), found=asked.text, fix=error.fix) from None
    space = "" if asked.text[-1:].isspace() or is_unspaced(choice[0]) else " "
    question, both = (_tokens(encoder.tokenizer, text) for text in (asked.text, asked.text + space + choice))
    ids = [*encoder.begin, *both]
    first = len(encoder.begin) + min(len(question), len(both) - 1)
    return Rendered(ids=ids, trained=[place >= first for place in range(len(ids))], prompts=[first], whole=len(ids))


def _tokens(tokenizer: Any, text: str) -> list[int]:
    return tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"]
