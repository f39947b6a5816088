"""Define the loss of a masked language model."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Bool
from torch import Tensor
from torch.nn import functional as F

from tunewright.data.batches.batch import Batch, Inputs
from tunewright.data.batches.examples import few_lengths
from tunewright.data.batches.packing import IGNORED
from tunewright.models.language.masked_positions import WANTED
from tunewright.training.objectives.base import Objective, Scalar
from tunewright.training.objectives.corruption import Vocabulary, hidden_counts, mask_tokens


@dataclass(frozen=True, kw_only=True)
class MaskedLMLoss:
    """Compute the cross entropy of hidden tokens, which have equal weight; without labels."""

    seed: int
    ratio: float
    vocabulary: Vocabulary

    def weight(self, batch: Batch) -> float:
        """Return the number of hidden tokens."""
        return int(hidden_counts(self._ordinary(batch), self.ratio).sum())

    def loss_sum(self, model: Callable[[Inputs], Tensor], batch: Batch, epoch: int) -> Scalar:
        """Return the sum over the batch's hidden tokens. The network computes the logits of few other positions, [tokens, vocab]."""
        inputs, hidden = self.hide(batch, epoch)
        wanted = _filled_up(hidden)
        target = batch.named["input_ids"].masked_fill(~hidden, IGNORED)[wanted]
        return F.cross_entropy(model({**inputs, WANTED: wanted}), target, ignore_index=IGNORED, reduction="sum")

    def hide(self, batch: Batch, epoch: int) -> tuple[dict[str, Tensor], Bool[Tensor, "batch time"]]:
        """Return the network's inputs, and which tokens it should predict."""
        tokens = batch.named["input_ids"]
        spoiled, hidden = mask_tokens(
            tokens,
            self._ordinary(batch),
            batch.ids,
            epoch,
            self.seed,
            ratio=self.ratio,
            vocabulary=self.vocabulary,
        )
        return {**batch.named, "input_ids": spoiled, WANTED: hidden}, hidden

    def _ordinary(self, batch: Batch) -> Bool[Tensor, "batch time"]:
        return ~torch.isin(batch.named["input_ids"], self.vocabulary.special) & (batch.named["attention_mask"] == 1)


def _filled_up(wanted: Bool[Tensor, "batch time"]) -> Bool[Tensor, "batch time"]:
    """Add as many positions as `few_lengths` requires, so that the head gets few different shapes."""
    flat = wanted.flatten()
    count = flat.sum().reshape(1)
    others = (~flat).nonzero().flatten()[: int(few_lengths(count, most=len(flat)) - count)]
    return flat.index_fill(0, others, value=True).view_as(wanted)


def masked_tokens(vocabulary: Vocabulary, *, ratio: float) -> Objective:
    """Build the objective of a masked language model, to predict hidden tokens (Devlin et al. 2019, section 3.1); see `mask_tokens`."""

    def bind(seed: int, device: torch.device) -> MaskedLMLoss:
        return MaskedLMLoss(seed=seed, ratio=ratio, vocabulary=vocabulary.to(device))

    return Objective(name="masked_tokens", supervised=False, bind=bind)
