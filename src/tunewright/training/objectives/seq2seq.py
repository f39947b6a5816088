"""What a network minimises that dictates to itself: the token that comes next, where all before it are the right ones."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from tunewright.data.batches.batch import Batch
from tunewright.models.speech.whisper import Whisper
from tunewright.training.objectives.base import Objective
from tunewright.training.objectives.ctc import NO_LETTER, ctc


@dataclass(frozen=True, kw_only=True)
class FromDictation:
    """The cross entropy of each token and of the end (Sutskever, Vinyals and Le 2014, equation 1)."""

    start: list[int]
    end: int

    def weight(self, batch: Batch) -> float:
        """The number of tokens, ends included."""
        assert batch.target is not None
        return int((batch.target != NO_LETTER).sum()) + len(batch.target)

    def loss_sum(self, model: Callable[[Any], Tensor], batch: Batch, epoch: int) -> Tensor:
        """The sum over the batch's tokens, a scalar."""
        assert isinstance(model, Whisper) and batch.target is not None
        read, wanted = beginnings(batch.target, self.start, self.end)
        logits = model({**batch.named, "tokens": read})
        return F.cross_entropy(logits.flatten(0, 1), wanted.flatten(), ignore_index=NO_LETTER, reduction="sum")


def beginnings(target: Tensor, start: list[int], end: int) -> tuple[Tensor, Tensor]:
    """What the decoder reads [B, P + L], and what it is to write [B, P + L], `NO_LETTER` where nothing is asked.

    Args:
        target: [B, L], `NO_LETTER` behind a text's end.
        start: the P tokens that every text begins with.
    """
    rows = len(target)
    head = torch.tensor(start, device=target.device).expand(rows, -1)
    read = torch.cat([head, target.masked_fill(target == NO_LETTER, end)], 1)
    nothing = torch.full((rows, len(start)), NO_LETTER, device=target.device)
    wanted = torch.cat([target, nothing[:, :1]], 1)
    wanted = wanted.scatter(1, (target != NO_LETTER).sum(1, keepdim=True), end)
    return read, torch.cat([nothing[:, 1:], wanted], 1)


def dictation(encoder: Any) -> Objective:
    """The cross entropy of what is dictated."""

    def bind(seed: int, device: torch.device) -> FromDictation:
        return FromDictation(start=encoder.start, end=encoder.end)

    return Objective(name="dictation", supervised=False, bind=bind)


TRANSCRIPTIONS: dict[str, Callable[..., Objective]] = {"ctc": ctc, "dictation": dictation}
