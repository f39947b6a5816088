"""Texts as a language model reads them: whole, one after the other, with a sign where each begins and ends."""

from __future__ import annotations

import hashlib
from abc import abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa
import torch

from tunewright.data.batches.batch import Truth
from tunewright.data.batches.packing import PackedExamples, pack
from tunewright.data.prepared import Prepared
from tunewright.data.text.token_cache import token_file
from tunewright.data.text.tokenizer import WRITER, has_endless_words, trained_tokenizer, without_endless_words
from tunewright.errors import DataError, RecipeError
from tunewright.models.backbone import Backbone
from tunewright.recipe.schema import Recipe
from tunewright.tasks.base.public_statistics import public_tokenizer
from tunewright.tasks.base.targets import TargetEncoder
from tunewright.tasks.text.encoder import TokenEncoder, load_tokenizer, text_columns, tokenizer_to_train

USUAL_TOKENIZER = "bpe"
# Tokens that a pretrained network reads at once unless the recipe says otherwise.
USUAL_CONTEXT = 1024
# Texts that are tokenised at once: enough for all cores.
AT_ONCE = 500
# Raised when texts are made into tokens in another way, so that no run uses what an older version kept.
VERSION = 1


@dataclass(frozen=True, kw_only=True)
class CausalTextEncoder(TokenEncoder):
    """What the encoders of models that write have: where a text begins and ends."""

    special_roles: ClassVar[tuple[str, ...]] = ("pad", "bos", "eos")

    @property
    def begin(self) -> list[int]:
        """What stands before a text: the tokenizer's sign for it; where it has none, that for the end of another."""
        return [self.tokenizer.bos_token_id if self.tokenizer.bos_token_id is not None else self.end]

    @property
    def end(self) -> int:
        """What stands behind a text."""
        return self.tokenizer.eos_token_id

    @abstractmethod
    def sequences(self, table: pa.Table) -> list[list[int]]:
        """Return the tokens of each row, at most as many as the network reads at once."""


@dataclass(frozen=True, kw_only=True)
class CausalEncoder(CausalTextEncoder):
    """One column of text as tokens; rows of `max_length` tokens are cut from the texts one behind the other."""

    @property
    def column(self) -> str:
        """The one column."""
        return self.columns[0]

    def examples(self, table: pa.Table, target: Truth) -> PackedExamples:
        """Return rows of one length with all tokens of the texts. Raises DataError when there is no text."""
        documents = self.documents(table)
        if not any(len(document) for document in documents):
            raise self._no_text(table.num_rows)
        return pack(documents, torch.tensor(np.asarray(table["_row"])), self.max_length)

    def split(self, prepared: Prepared, split: str, target: TargetEncoder | None) -> PackedExamples:
        """Return the rows of a prepared split, whose tokens are kept on disk and are there at once the next time.

        Raises:
            DataError: there is no text.
        """
        parts = ((self.documents(table), np.asarray(table["_row"])) for table in prepared.pieces(split, self.columns))
        facts = [VERSION, prepared.manifest.fingerprint, split, self.columns, tokenizer_hash(self.tokenizer)]
        key = hashlib.sha256(repr(facts).encode()).hexdigest()[:32]
        found = token_file(key, parts, pieces=len(self.tokenizer))
        if not len(found.rows):
            raise self._no_text(prepared.rows(split))
        rows = torch.from_numpy(np.array(found.rows))
        return PackedExamples(tokens=found.tokens, starts=found.starts, documents=rows, context=self.max_length)

    def sequences(self, table: pa.Table) -> list[list[int]]:
        return [ids[: self.limit].tolist() for ids in self.documents(table) if len(ids) > 1]

    def documents(self, table: pa.Table) -> list[np.ndarray]:
        """Return the tokens of each text, with its beginning and end; of an empty text none."""
        begin, end = self.begin, self.end
        return [
            np.array([*begin, *tokens, end] if tokens else [], np.int32)
            for tokens in token_ids(self.tokenizer, self.texts(table, self.column))
        ]

    def _no_text(self, rows: int) -> DataError:
        return DataError(
            "there is no text to train on",
            place="data.input",
            found=f"{rows:,} rows, all of them empty in {self.column!r}",
            fix="name another column with data.input",
        )

    def to_json(self) -> dict[str, Any]:
        return {"columns": self.columns, "max_length": self.max_length, "limit": self.limit}


def token_ids(tokenizer: Any, texts: list[str]) -> Iterator[list[int]]:
    """Yield the tokens of each text as it stands, without special ones; a few hundred texts are in work at once, on all cores."""
    for start in range(0, len(texts), AT_ONCE):
        part = texts[start : start + AT_ONCE]
        if any(map(has_endless_words, part)):
            yield from (_ids_in_parts(tokenizer, text) for text in part)
        elif tokenizer.is_fast:
            # Straight from the library beneath: what lies between makes lists of all that a model could want.
            tokenizer.backend_tokenizer.no_truncation()
            tokenizer.backend_tokenizer.no_padding()
            for encoding in tokenizer.backend_tokenizer.encode_batch_fast(part, add_special_tokens=False):
                yield encoding.ids
        else:
            yield from tokenizer(part, add_special_tokens=False, verbose=False)["input_ids"]


def _ids_in_parts(tokenizer: Any, text: str) -> list[int]:
    """Return the tokens of a text that may have endless words: of few parts of it at a time, as each token takes much memory."""
    found: list[int] = []
    parts = without_endless_words(text)
    while few := list(islice(parts, AT_ONCE)):
        found += [
            token for ids in tokenizer(few, add_special_tokens=False, verbose=False)["input_ids"] for token in ids
        ]
    return found


def tokenizer_hash(tokenizer: Any) -> str:
    """Return what tells two tokenizers apart: all that decides about their tokens."""
    whole = tokenizer.backend_tokenizer.to_str() if tokenizer.is_fast else repr(sorted(tokenizer.get_vocab().items()))
    ends = (tokenizer.bos_token_id, tokenizer.eos_token_id)
    return hashlib.sha256(f"{whole}{ends}".encode()).hexdigest()


def fit_causal(
    prepared: Prepared, recipe: Recipe, backbone: Backbone | None, known: CausalEncoder | None
) -> CausalEncoder:
    """Fit the encoder for the text column of a prepared set, with the backbone's tokenizer, one that is trained on the
    training texts, or the one that the network was trained with.

    Raises:
        DataError: there is no text column, or there are several.
        RecipeError: no backbone, a context that it cannot read, or a tokenizer that does not say where a text ends.
    """
    columns = text_columns(prepared, recipe)
    if len(columns) != 1:
        raise DataError(
            "a language model reads one column of text, the data has several",
            file=prepared.manifest.source,
            place="data.input",
            found=", ".join(columns),
            expected="one text column",
            fix=f"data.input: {columns[0]}",
        )
    if known is not None:
        length = context_of(recipe, known.limit, known.max_length)
        return CausalEncoder(columns=columns, max_length=length, limit=known.limit, tokenizer=known.tokenizer)
    if backbone is None:
        raise RecipeError(
            "a language model needs a backbone of the Transformers library, or our gpt",
            place="model.backbone",
            expected="gpt, {gpt: {layers: 4, width: 128}}, a folder or a hub id",
            fix="model.backbone: gpt",
        )
    tokenizer, limit = writing_tokenizer(prepared, recipe, backbone, columns)
    usual = limit if not backbone.pretrained else min(USUAL_CONTEXT, limit)
    return CausalEncoder(columns=columns, max_length=context_of(recipe, limit, usual), limit=limit, tokenizer=tokenizer)


def load_causal(value: dict[str, Any], folder: Path) -> CausalEncoder:
    """Load the encoder from its JSON and the tokenizer's files."""
    return CausalEncoder(**value, tokenizer=load_tokenizer(folder))


def writing_tokenizer(prepared: Prepared, recipe: Recipe, backbone: Backbone, columns: list[str]) -> tuple[Any, int]:
    """Return a language model's tokenizer, the backbone's or one trained on the columns; and the tokens that it reads at most.

    Raises:
        RecipeError: it does not say where a text ends, or one is to be trained for pretrained weights.
    """
    limit = int(backbone.config.get("max_position_embeddings") or backbone.config.get("n_positions") or 10**9)
    trained = tokenizer_to_train(recipe, backbone, USUAL_TOKENIZER)
    folder = public_tokenizer(prepared, recipe, columns) if trained is not None else backbone.folder
    if folder is None:
        folder = trained_tokenizer(prepared, columns, trained or USUAL_TOKENIZER, limit, WRITER)
    tokenizer = load_tokenizer(folder)
    if tokenizer.eos_token_id is None:
        raise RecipeError(
            "the backbone's tokenizer has no end-of-text token",
            place="model.backbone",
            found=type(tokenizer).__name__,
            expected="the tokenizer of a language model, with an eos_token",
            fix="take another backbone",
        )
    return tokenizer, limit


def context_of(recipe: Recipe, limit: int, usual: int) -> int:
    """Tokens that are to be read at once: the recipe's word, or the usual.

    Raises:
        RecipeError: more than the network can.
    """
    wanted = recipe.model.max_length or usual
    if wanted > limit:
        raise RecipeError(
            "the network's context is shorter",
            place="model.max_length",
            found=wanted,
            expected=f"at most {limit} tokens",
            fix=f"model.max_length: {limit}; of a new gpt also its context",
        )
    return wanted
