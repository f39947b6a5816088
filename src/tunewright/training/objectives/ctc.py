"""Define connectionist temporal classification (CTC), the loss of the characters in order, without their positions in time."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from tunewright.data.batches.batch import Batch, Inputs
from tunewright.models.speech.base import BLANK
from tunewright.training.objectives.base import AlignedModel, Objective, Scalar

# The padding of targets.
NO_LETTER = -1


@dataclass(frozen=True, kw_only=True)
class CTCLoss:
    """Compute −log p(characters | recording), where p sums over all alignments of characters and blanks with the output steps
    (Graves et al. 2006, section 4)."""

    def weight(self, batch: Batch) -> float:
        """Return the number of characters, so that each has equal weight."""
        assert batch.target is not None
        return int((batch.target != NO_LETTER).sum())

    def loss_sum(self, model: Callable[[Inputs], Tensor], batch: Batch, epoch: int) -> Scalar:
        """Return the sum over the batch's recordings."""
        assert isinstance(model, AlignedModel) and batch.target is not None
        found = model(batch.named)
        letters = batch.target != NO_LETTER
        return F.ctc_loss(
            found.transpose(0, 1),
            batch.target.clamp(min=0),
            model.moments(batch.named["lengths"]),
            letters.sum(1),
            blank=BLANK,
            reduction="sum",
            # A text that is too long for its recording has no alignment; the data checks report it.
            zero_infinity=True,
        )


def ctc(encoder: object) -> Objective:
    """Build the CTC objective."""

    def bind(seed: int, device: torch.device) -> CTCLoss:
        return CTCLoss()

    return Objective(name="ctc", supervised=False, bind=bind)
