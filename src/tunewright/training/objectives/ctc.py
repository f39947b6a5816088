"""What a recogniser of speech minimises: the letters in their order, wherever in time each of them stands."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from tunewright.data.batches.batch import Batch
from tunewright.models.speech.base import BLANK, Recogniser
from tunewright.training.objectives.base import Objective

# What fills targets up behind their end.
NO_LETTER = -1


@dataclass(frozen=True, kw_only=True)
class FromTranscripts:
    """Connectionist temporal classification, −log p(letters | sound), with p summed over all ways to stretch the letters and
    put blanks between them (Graves et al. 2006, section 4)."""

    def weight(self, batch: Batch) -> float:
        """The number of letters, so that each weighs the same."""
        assert batch.target is not None
        return int((batch.target != NO_LETTER).sum())

    def loss_sum(self, model: Callable[[Any], Tensor], batch: Batch, epoch: int) -> Tensor:
        """The sum over the batch's recordings, a scalar."""
        assert isinstance(model, Recogniser) and batch.target is not None
        found = model(batch.inputs)
        letters = batch.target != NO_LETTER
        return F.ctc_loss(
            found.transpose(0, 1),
            batch.target.clamp(min=0),
            model.moments(batch.named["lengths"]),
            letters.sum(1),
            blank=BLANK,
            reduction="sum",
            # A text that is too long for its recording has no way at all: it is counted when the data is looked at.
            zero_infinity=True,
        )


def ctc(encoder: Any) -> Objective:
    """Connectionist temporal classification."""

    def bind(seed: int, device: torch.device) -> FromTranscripts:
        return FromTranscripts()

    return Objective(name="ctc", supervised=False, bind=bind)
