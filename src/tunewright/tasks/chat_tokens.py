"""Conversations as a chat model reads them: whole, several in a row, and of each only what the assistant says is learned."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor

from tunewright.data.batching import Batch
from tunewright.data.conversations import Shape, Turn, conversation, recognise
from tunewright.data.packing import IGNORED
from tunewright.data.prepare import Prepared
from tunewright.data.tokenizer import WRITER, trained_tokenizer
from tunewright.errors import DataError, RecipeError, shorten
from tunewright.models.pretrained import Backbone
from tunewright.models.transformer import quiet
from tunewright.recipe.schema import Recipe
from tunewright.tasks.causal_tokens import USUAL_CONTEXT, USUAL_TOKENIZER, context_of, read_limit
from tunewright.tasks.chat_template import Rendered, TemplateMismatch, default_template, render
from tunewright.tasks.tokens import load_tokenizer, tokenizer_to_train

# Rows that a message names.
NAMED = 3
# Rows that are still open: more would pack hardly better, and take longer.
LOOKED_BACK = 64


@dataclass(frozen=True, kw_only=True)
class ChatExamples:
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
        return torch.tensor([sum(len(self.conversations[index].ids) - 1 for index in bin) for bin in self.bins])

    @property
    def augmented(self) -> bool:
        return True

    @property
    def trained_tokens(self) -> int:
        return sum(sum(entry.trained) for entry in self.conversations)

    def __len__(self) -> int:
        return len(self.bins)

    def to(self, device: torch.device) -> ChatExamples:
        return replace(self, device=device)

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
class ChatEncoder:
    """Conversations of one shape, written by the tokenizer's chat template."""

    shape: str
    columns: tuple[str, ...]
    max_length: int
    """Tokens that the network reads at once: a row holds so many."""
    limit: int
    tokenizer: Any = field(repr=False, compare=False)
    plain_name: str = "token frequencies"
    plain_rows: int = 50_000

    @property
    def input_shape(self) -> tuple[int]:
        return (self.max_length,)

    @property
    def begin(self) -> list[int]:
        return []

    @property
    def end(self) -> int:
        return self.tokenizer.eos_token_id

    @property
    def ends(self) -> frozenset[int]:
        """The tokens at which generation stops."""
        return frozenset({self.end})

    def examples(self, table: pa.Table, target: Tensor | None) -> ChatExamples:
        """The conversations of a table. Raises DataError when one does not fit the template or the context."""
        found = self.rendered(table)
        return ChatExamples(
            conversations=found,
            numbers=torch.tensor(np.asarray(table["_row"])),
            bins=packed([len(entry.ids) - 1 for entry in found], self.max_length),
        )

    def turns(self, table: pa.Table) -> list[list[Turn]]:
        """What is said in each row. Raises DataError, which names the row, for one that holds no conversation."""
        shape = Shape(name=self.shape, columns=self.columns)
        missing = [name for name in self.columns if name not in table.column_names]
        if missing:
            raise DataError(
                f"the data has no column {missing[0]!r}",
                found=", ".join(table.column_names),
                expected=f"conversations as {self.shape}, as the model was trained on",
                fix="rename the column",
            )
        columns = [table[name].cast(pa.string()).to_pylist() for name in self.columns]
        found: list[list[Turn]] = []
        for number, *cells in zip(table["_row"].to_pylist(), *columns, strict=True):
            try:
                found.append(conversation(shape, dict(zip(self.columns, cells, strict=True))))
            except ValueError as error:
                raise DataError(
                    str(error),
                    place=f"row {number}",
                    found=cells[0],
                    expected=self.shape,
                    fix="correct or remove the row",
                ) from None
        return found

    def rendered(self, table: pa.Table) -> list[Rendered]:
        """Each row's tokens and mask.

        Raises:
            DataError: a row does not fit the template, or nothing that it teaches fits into the context.
        """
        found: list[Rendered] = []
        rows = table["_row"].to_pylist()
        lost: list[int] = []
        for row, turns in zip(rows, self.turns(table), strict=True):
            try:
                whole = render(self.tokenizer, turns, self.ends)
            except TemplateMismatch as error:
                raise DataError(
                    str(error), place=f"row {row}", found=shorten(turns[0].content, 60), fix=error.fix
                ) from None
            size = self.max_length + 1
            cut = replace(whole, ids=whole.ids[:size], trained=whole.trained[:size])
            if not any(cut.trained[1:]):
                lost.append(row)
            found.append(cut)
        if lost:
            raise DataError(
                f"of {len(lost):,} of {len(rows):,} conversations nothing that the assistant says fits into the context",
                place=f"rows {', '.join(map(str, lost[:NAMED]))}" + (", …" if len(lost) > NAMED else ""),
                found=f"{self.max_length} tokens",
                fix=f"raise model.max_length (at most {self.limit}), or shorten what stands before the answers",
            )
        return found

    def plain(self, train: pa.Table, test: pa.Table) -> tuple[Any, Any]:
        raise NotImplementedError  # a language model's baselines are of its examination

    def show(self, table: pa.Table, index: int) -> dict[str, Any]:
        return {"input": {name: table[name][index].as_py() for name in self.columns}}

    def to_json(self) -> dict[str, Any]:
        facts = {"shape": self.shape, "columns": list(self.columns)}
        return {**facts, "max_length": self.max_length, "limit": self.limit}

    def write(self, folder: Path) -> None:
        """The tokenizer's files with its template, in the library's format."""
        with quiet():
            self.tokenizer.save_pretrained(folder)


def packed(lengths: list[int], room: int) -> list[list[int]]:
    """Which conversations go into which row: each into the first of the last few rows that has room for it.

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


def fit_chat(prepared: Prepared, recipe: Recipe, backbone: Backbone | None, known: Any) -> ChatEncoder:
    """The encoder for the conversations of a prepared set.

    The tokenizer is the backbone's, that of the language model that a stage before made, or one trained here; one without a
    chat template gets a usual one.

    Raises:
        DataError: the columns hold no conversations.
        RecipeError: no backbone, or a context that it cannot read.
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
    if known is not None:
        tokenizer, limit, usual = known.tokenizer, known.limit, known.max_length
    elif backbone is None:
        raise RecipeError(
            "a chat model needs a language model to begin with",
            place="model.backbone",
            expected="a folder or a hub id, gpt, or a stage before this one",
            fix="model.backbone: the model's folder",
        )
    else:
        limit = read_limit(backbone)
        trained = tokenizer_to_train(recipe, backbone, USUAL_TOKENIZER)
        columns = list(shape.columns)
        folder = backbone.folder if trained is None else trained_tokenizer(prepared, columns, trained, limit, WRITER)
        tokenizer = load_tokenizer(folder)
        usual = min(USUAL_CONTEXT, limit)
    if tokenizer.chat_template is None:
        tokenizer.chat_template = default_template(tokenizer)
    length = context_of(recipe, limit, usual)
    return ChatEncoder(shape=shape.name, columns=shape.columns, max_length=length, limit=limit, tokenizer=tokenizer)


def load_chat(value: dict[str, Any], folder: Path) -> ChatEncoder:
    """The encoder from its JSON and the tokenizer's files beside it."""
    facts: dict[str, Any] = {**value, "columns": tuple(value["columns"])}
    return ChatEncoder(**facts, tokenizer=load_tokenizer(folder))
