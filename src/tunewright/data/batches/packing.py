"""Texts of any length as rows of one length: each token in exactly one row, and each row's documents told apart.

The documents stand one behind the other in a circle, which is cut into rows. Where it is first cut depends on the epoch, so
no epoch has the same rows; the rows of epoch 0 are those of an evaluation too.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from tunewright.data.batches.batch import BaseExamples, Batch
from tunewright.errors import RecipeError
from tunewright.random import mix

# The target of a position that has nothing to predict: a document's last token, padding.
IGNORED = -100


@dataclass(frozen=True, kw_only=True)
class PackedExamples(BaseExamples):
    """Rows of `context` + 1 tokens, whose first `context` are the input and whose last `context` the targets.

    A batch's inputs are {"input_ids", "document", "position"}, each [B, context]: the token, the number of its document
    in the row, and its place in it (from the row's start, where the document began before it). The target [B, context] is
    the next token, `IGNORED` where the next is of another document.
    """

    tokens: np.ndarray
    """[tokens], all documents one behind the other; may lie on disk."""
    starts: np.ndarray
    """[documents + 1] int64: where each document starts, and the end; no document is empty."""
    documents: Tensor
    """[documents] int64: each document's row number in the source, counted from 1."""
    context: int
    device: torch.device | None = None

    @property
    def rows(self) -> Tensor:
        """[N]: for each example the source row of the document that it begins in, in epoch 0."""
        return self.documents[torch.from_numpy(self._document_at(np.arange(len(self)) * self._length))]

    @property
    def target(self) -> None:
        return None

    @property
    def lengths(self) -> None:
        return None

    @property
    def augmented(self) -> bool:
        return True

    def __len__(self) -> int:
        return -(-len(self.tokens) // self._length)

    def to(self, device: torch.device) -> PackedExamples:
        return replace(self, device=device)

    def one_row_each(self) -> PackedExamples:
        """Raise RecipeError: the texts of a row cannot be told apart."""
        raise RecipeError(
            "the texts of this task are packed end to end, so what one of them did could not be limited",
            place="privacy",
            found="packed texts",
            expected="a task whose rows are examples, such as supervised-fine-tuning",
            fix="fine-tune on conversations with privacy instead",
        )

    def batch(self, ids: Tensor, epoch: int | None = None) -> Batch:
        total, length = len(self.tokens), self._length
        places = ids.numpy()[:, None] * length + np.arange(length)
        padding = places >= total  # of the last row
        places = (places + (mix(0, "cut", epoch) % length if epoch else 0)) % total
        starts = self.starts[self._document_at(places)]
        begins = torch.from_numpy((places == starts) | padding)
        tokens = torch.from_numpy(self.tokens[places].astype(np.int64)).masked_fill_(torch.from_numpy(padding), 0)
        column = torch.arange(length).expand_as(tokens)
        position = column - torch.where(begins, column, 0).cummax(dim=1).values
        target = tokens[:, 1:].masked_fill(begins[:, 1:], IGNORED)
        inputs = {"input_ids": tokens, "document": begins.cumsum(1), "position": position}
        return Batch(
            {name: value[:, :-1].to(self.device) for name, value in inputs.items()}, target.to(self.device), ids
        )

    @property
    def _length(self) -> int:
        return self.context + 1

    def _document_at(self, places: np.ndarray) -> np.ndarray:
        """Return the number of the document that holds each token."""
        return np.searchsorted(self.starts, places, side="right") - 1


def pack(texts: list[np.ndarray], rows: Tensor, context: int) -> PackedExamples:
    """Documents in memory as rows.

    Args:
        texts: the tokens of each document, one of them at least.
        rows: [documents] int64, each document's row number in the source.
    """
    filled = [index for index, text in enumerate(texts) if len(text)]
    starts = np.zeros(len(filled) + 1, np.int64)
    np.cumsum([len(texts[index]) for index in filled], out=starts[1:])
    tokens = np.concatenate([texts[index] for index in filled])
    return PackedExamples(tokens=tokens, starts=starts, documents=rows[filled], context=context)
