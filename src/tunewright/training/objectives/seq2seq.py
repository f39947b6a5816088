"""Define the loss of sequence-to-sequence speech recognition: the cross entropy of the next token with teacher forcing."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Int
from torch import Tensor
from torch.nn import functional as F

from tunewright.data.batches.batch import Batch, Inputs
from tunewright.training.objectives.base import Objective, Scalar
from tunewright.training.objectives.ctc import NO_LETTER, ctc


@runtime_checkable
class Transcripts(Protocol):
    """Hold the token ids around every transcript."""

    start: list[int]
    end: int


@dataclass(frozen=True, kw_only=True)
class Seq2SeqLoss:
    """Compute the cross entropy of each token and of the end token (Sutskever, Vinyals and Le 2014, equation 1)."""

    start: list[int]
    end: int

    def weight(self, batch: Batch) -> float:
        """Return the number of tokens, end tokens included."""
        assert batch.target is not None
        return int((batch.target != NO_LETTER).sum()) + len(batch.target)

    def loss_sum(self, model: Callable[[Inputs], Tensor], batch: Batch, epoch: int) -> Scalar:
        """Return the sum over the batch's tokens."""
        assert batch.target is not None
        read, wanted = beginnings(batch.target, self.start, self.end)
        logits = model({**batch.named, "tokens": read})
        return F.cross_entropy(logits.flatten(0, 1), wanted.flatten(), ignore_index=NO_LETTER, reduction="sum")


def beginnings(
    target: Int[Tensor, "batch tokens"], start: list[int], end: int
) -> tuple[Int[Tensor, "batch start_and_tokens"], Int[Tensor, "batch start_and_tokens"]]:
    """Return the decoder's input, and the tokens that it should predict, `NO_LETTER` where the loss skips them.

    Args:
        target: `NO_LETTER` after the end of a text.
        start: the tokens that every text begins with.
    """
    rows = len(target)
    head = torch.tensor(start, device=target.device).expand(rows, -1)
    read = torch.cat([head, target.masked_fill(target == NO_LETTER, end)], 1)
    nothing = torch.full((rows, len(start)), NO_LETTER, device=target.device)
    wanted = torch.cat([target, nothing[:, :1]], 1)
    wanted = wanted.scatter(1, (target != NO_LETTER).sum(1, keepdim=True), end)
    return read, torch.cat([nothing[:, 1:], wanted], 1)


def dictation(encoder: Transcripts) -> Objective:
    """Build the cross entropy of transcripts."""

    def bind(seed: int, device: torch.device) -> Seq2SeqLoss:
        return Seq2SeqLoss(start=encoder.start, end=encoder.end)

    return Objective(name="dictation", supervised=False, bind=bind)


TRANSCRIPTIONS: dict[str, Callable[..., Objective]] = {"ctc": ctc, "dictation": dictation}
