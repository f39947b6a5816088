"""Define the loss of a causal language model."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from tunewright.data.batches.batch import Batch, Inputs
from tunewright.data.batches.packing import IGNORED
from tunewright.training.objectives.base import LanguageModel, Objective, Scalar
from tunewright.training.objectives.chunked_cross_entropy import token_loss_sum


@dataclass(frozen=True, kw_only=True)
class CausalLMLoss:
    """Compute the cross entropy of each token given those before it; all tokens have equal weight."""

    z_loss: float

    def weight(self, batch: Batch) -> float:
        """Return the number of predicted tokens."""
        assert batch.target is not None
        return int((batch.target != IGNORED).sum())

    def loss_sum(self, model: Callable[[Inputs], Tensor], batch: Batch, epoch: int) -> Scalar:
        """Return the sum over the batch's tokens."""
        assert isinstance(model, LanguageModel) and batch.target is not None
        weight = model.output_weight
        if weight is None:
            logits = model(batch.inputs).flatten(0, 1)
            sums = logits.logsumexp(1)[batch.target.flatten() != IGNORED]
            loss = F.cross_entropy(logits, batch.target.flatten(), ignore_index=IGNORED, reduction="sum")
            return loss + self.z_loss * sums.square().sum()
        dtype = torch.bfloat16 if model.reduced else torch.float32
        return token_loss_sum(model.hidden(batch.named), weight, batch.target, z_loss=self.z_loss, dtype=dtype)


def next_tokens(*, z_loss: float) -> Objective:
    """Build the objective of a language model, to predict the next token (Bengio et al. 2003); `z_loss` as in `token_loss_sum`."""
    return Objective(name="next_tokens", supervised=False, bind=lambda seed, device: CausalLMLoss(z_loss=z_loss))
