"""Conversations as a chat model reads them: whole, several in a row, and of each only what the assistant says is learned."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor

from tunewright.data.batches.batch import BaseExamples, Batch, Truth
from tunewright.data.batches.examples import few_lengths
from tunewright.data.batches.packing import IGNORED
from tunewright.data.prepared import Prepared
from tunewright.data.text.conversations import Shape, Turn, conversation, recognise
from tunewright.errors import DataError, RecipeError, shorten
from tunewright.models.backbone import Backbone
from tunewright.models.core.network import Network
from tunewright.recipe.schema import Recipe
from tunewright.tasks.language_model.chat_template import Rendered, TemplateMismatch, default_template, render
from tunewright.tasks.language_model.encoder import USUAL_CONTEXT, CausalTextEncoder, context_of, writing_tokenizer
from tunewright.tasks.text.encoder import load_tokenizer

# What a row holds: a conversation, or a pair of answers.
Said = TypeVar("Said")
# Rows that a message names.
NAMED = 3
# Rows that are still open: more would pack hardly better, and take longer.
LOOKED_BACK = 64


@dataclass(frozen=True, kw_only=True)
class ChatExamples(BaseExamples):
    """Rows of whole conversations, as many as there is room for; padded at their end alone.

    A batch's inputs and target are those of `PackedExamples`, the target `IGNORED` also where the next token is not the
    assistant's.
    """

    conversations: list[Rendered]
    numbers: Tensor
    """[conversations] int64: each one's row number in the source."""
    bins: list[list[int]]
    """Which conversations make up each row."""
    device: torch.device | None = None

    @property
    def rows(self) -> Tensor:
        return self.numbers[[bin[0] for bin in self.bins]]

    @property
    def target(self) -> None:
        return None

    @property
    def lengths(self) -> Tensor:
        return self._lengths

    @cached_property
    def _lengths(self) -> Tensor:
        """Added up once: every batch asks for them."""
        return few_lengths(
            torch.tensor([sum(len(self.conversations[index].ids) - 1 for index in bin) for bin in self.bins])
        )

    @property
    def augmented(self) -> bool:
        return True

    @property
    def tokens(self) -> int:
        return sum(len(entry.ids) for entry in self.conversations)

    @property
    def trained_tokens(self) -> int:
        return sum(sum(entry.trained) for entry in self.conversations)

    @property
    def cut(self) -> int:
        """How many conversations are longer than the context, and lost their end."""
        return sum(entry.whole > len(entry.ids) for entry in self.conversations)

    def __len__(self) -> int:
        return len(self.bins)

    def to(self, device: torch.device) -> ChatExamples:
        return replace(self, device=device)

    def one_row_each(self) -> ChatExamples:
        return replace(self, bins=[[index] for index in range(len(self.conversations))])

    def batch(self, ids: Tensor, epoch: int | None = None) -> Batch:
        width = int(self.lengths[ids].max())
        tokens, document, position = (torch.zeros(len(ids), width, dtype=torch.int64) for _ in range(3))
        target = torch.full_like(tokens, IGNORED)
        for row, index in enumerate(ids.tolist()):
            place = 0
            for number, member in enumerate(self.bins[index], start=1):
                entry = self.conversations[member]
                length = len(entry.ids) - 1
                here = slice(place, place + length)
                whole = torch.tensor(entry.ids)
                tokens[row, here], document[row, here] = whole[:-1], number
                position[row, here] = torch.arange(length)
                target[row, here] = torch.where(torch.tensor(entry.trained[1:]), whole[1:], IGNORED)
                place += length
        inputs = {"input_ids": tokens, "document": document, "position": position}
        return Batch({name: value.to(self.device) for name, value in inputs.items()}, target.to(self.device), ids)


@dataclass(frozen=True, kw_only=True)
class ChatEncoder(CausalTextEncoder):
    """What is said, written by the tokenizer's chat template; in rows of one shape."""

    shape: str

    @property
    def cuts_texts(self) -> bool:
        return True

    @property
    def ends(self) -> frozenset[int]:
        """The tokens at which generation stops."""
        return frozenset({self.end})

    def configure(self, network: Network) -> None:
        network.end_at(self.ends)

    def cells(self, table: pa.Table) -> list[tuple[int, dict[str, str | None]]]:
        """Return each row's number in the source, and its columns. Raises DataError when one is missing."""
        missing = [name for name in self.columns if name not in table.column_names]
        if missing:
            raise DataError(
                f"the data has no column {missing[0]!r}",
                found=", ".join(table.column_names),
                expected=f"{self.shape}, as the model was trained on",
                fix="rename the column",
            )
        columns = [table[name].cast(pa.string()).to_pylist() for name in self.columns]
        rows = zip(table["_row"].to_pylist(), zip(*columns, strict=True), strict=True)
        return [(number, dict(zip(self.columns, cells, strict=True))) for number, cells in rows]

    def read(self, table: pa.Table, reader: Callable[[dict[str, str | None]], Said]) -> list[Said]:
        """Return what `reader` finds in each row. Raises DataError, which names the row, where it finds nothing."""
        found: list[Said] = []
        for number, row in self.cells(table):
            try:
                found.append(reader(row))
            except ValueError as error:
                raise DataError(
                    str(error),
                    place=f"row {number}",
                    found=next(iter(row.values())),
                    expected=self.shape,
                    fix="correct or remove the row",
                ) from None
        return found

    def render(self, rows: list[int], conversations: list[list[Turn]]) -> list[Rendered]:
        """Return the tokens and mask of each conversation, cut at the context.

        Args:
            rows: their numbers in the source.

        Raises:
            DataError: one does not fit the template.
        """
        found: list[Rendered] = []
        ends, size = self.ends, self.max_length + 1
        for row, turns in zip(rows, conversations, strict=True):
            try:
                whole = render(self.tokenizer, turns, ends)
            except TemplateMismatch as error:
                raise DataError(
                    str(error), place=f"row {row}", found=shorten(turns[0].content, 60), fix=error.fix
                ) from None
            found.append(replace(whole, ids=whole.ids[:size], trained=whole.trained[:size], whole=len(whole.ids)))
        return found

    def require_answers(self, rows: list[int], found: list[Rendered]) -> None:
        """Raises DataError when no answer fits into the context."""
        lost = [row for row, entry in zip(rows, found, strict=True) if not any(entry.trained[1:])]
        if not lost:
            return
        raise DataError(
            f"of {len(lost):,} of {len(rows):,} conversations no answer fits into the context",
            place=f"rows {', '.join(map(str, lost[:NAMED]))}" + (", …" if len(lost) > NAMED else ""),
            found=f"{self.max_length} tokens",
            fix=f"raise model.max_length (at most {self.limit}), or shorten what stands before the answers",
        )

    def to_json(self) -> dict[str, Any]:
        facts = {"shape": self.shape, "columns": self.columns}
        return {**facts, "max_length": self.max_length, "limit": self.limit}


@dataclass(frozen=True, kw_only=True)
class SupervisedChatEncoder(ChatEncoder):
    """Conversations, in which all that the assistant says is learned."""

    def examples(self, table: pa.Table, target: Truth) -> ChatExamples:
        """Return the conversations of a table. Raises DataError when one does not fit the template or the context."""
        found = self.rendered(table)
        return ChatExamples(
            conversations=found,
            numbers=torch.tensor(np.asarray(table["_row"])),
            bins=packed([len(entry.ids) - 1 for entry in found], self.max_length),
        )

    def rendered(self, table: pa.Table) -> list[Rendered]:
        """Return each row's tokens and mask.

        Raises:
            DataError: a row holds no conversation or does not fit the template, or nothing that it teaches fits into the
                context.
        """
        rows = table["_row"].to_pylist()
        found = self.render(rows, self.conversations(table))
        self.require_answers(rows, found)
        return found

    def sequences(self, table: pa.Table) -> list[list[int]]:
        return [list(entry.ids) for entry in self.rendered(table)]

    def conversations(self, table: pa.Table) -> list[list[Turn]]:
        """Return each row's turns. Raises DataError when one holds no conversation."""
        shape = Shape(name=self.shape, columns=tuple(self.columns))
        return self.read(table, lambda row: conversation(shape, row))


def packed(lengths: list[int], room: int) -> list[list[int]]:
    """Return which conversations go into which row: each into the first of the last few rows that has room for it.

    Args:
        lengths: of each conversation, at most `room`.
    """
    bins: list[list[int]] = []
    left: list[int] = []
    for index, length in enumerate(lengths):
        recent = range(max(0, len(bins) - LOOKED_BACK), len(bins))
        place = next((number for number in recent if left[number] >= length), None)
        if place is None:
            bins.append([index])
            left.append(room - length)
        else:
            bins[place].append(index)
            left[place] -= length
    return bins


def fit_chat(prepared: Prepared, recipe: Recipe, backbone: Backbone | None, known: Any) -> SupervisedChatEncoder:
    """Fit the encoder for the conversations of a prepared set; see `talk_settings`.

    Raises:
        DataError: the columns hold no conversations.
        RecipeError: as `talk_settings`.
    """
    names = [column.name for column in prepared.manifest.columns]
    shape = recognise(names)
    if shape is None:
        raise DataError(
            "the data holds no conversations",
            file=prepared.manifest.source,
            found=", ".join(names),
            expected="messages; prompt and completion; instruction and output; or conversations",
            fix="rename the columns to one of these",
        )
    return SupervisedChatEncoder(**talk_settings(shape, prepared, recipe, backbone, known))


def talk_settings(
    shape: Shape, prepared: Prepared, recipe: Recipe, backbone: Backbone | None, known: CausalTextEncoder | None
) -> dict[str, Any]:
    """Return what an encoder of what is said is made of.

    The tokenizer is the backbone's, that of the language model that a stage before made, or one trained here; one without a
    chat template gets a usual one.

    Raises:
        RecipeError: no backbone, a context that it cannot read, or as `writing_tokenizer`.
    """
    columns = list(shape.columns)
    if known is not None:
        tokenizer, limit, usual = known.tokenizer, known.limit, known.max_length
    elif backbone is None:
        raise RecipeError(
            "a chat model starts from a language model",
            place="model.backbone",
            expected="a folder or a hub id, gpt, or a stage before this one",
            fix="model.backbone: the model's folder",
        )
    else:
        tokenizer, limit = writing_tokenizer(prepared, recipe, backbone, columns)
        usual = min(USUAL_CONTEXT, limit)
    if tokenizer.chat_template is None:
        tokenizer.chat_template = default_template(tokenizer)
    length = context_of(recipe, limit, usual)
    return {"shape": shape.name, "columns": columns, "max_length": length, "limit": limit, "tokenizer": tokenizer}


def load_chat(value: dict[str, Any], folder: Path) -> SupervisedChatEncoder:
    """Load the encoder from its JSON and the tokenizer's files."""
    return SupervisedChatEncoder(**value, tokenizer=load_tokenizer(folder))
