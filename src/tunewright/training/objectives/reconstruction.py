"""Losses of autoencoders: the input is reconstructed from a masked or noisy copy."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any

import torch
from pydantic import Field
from torch import Tensor
from torch.nn import functional as F

from tunewright.data.batches.batch import Batch
from tunewright.training.objectives.base import Objective, wrong_size
from tunewright.training.objectives.corruption import add_noise, mask


@dataclass(frozen=True, kw_only=True)
class ReconstructionLoss:
    """The error of giving back the input from a spoiled copy of it; no labels.

    An example's loss is the mean squared error of its hidden entries (`corrupt` gives a mask), or else of all.
    """

    corrupt: Callable[[Tensor, Tensor, int], tuple[Tensor, Tensor | None]]
    """(inputs [B, ...], ids [B], epoch) → the spoiled inputs, and a mask, true where the error counts."""

    def weight(self, batch: Batch) -> float:
        """The number of examples."""
        return batch.ids.shape[0]

    def loss_sum(self, model: Callable[[Any], Tensor], batch: Batch, epoch: int) -> Tensor:
        """The sum of the examples' losses, a scalar. The network's output may be flat.

        Raises:
            RecipeError: the network's output has another size than its input.
        """
        inputs = batch.pixels
        spoiled, counts = self.corrupt(inputs, batch.ids, epoch)
        outputs = model(spoiled)
        if outputs.numel() != inputs.numel():
            size = math.prod(inputs.shape[1:])
            raise wrong_size(math.prod(outputs.shape[1:]), f"{size}, the size of the input")
        outputs = outputs.reshape(inputs.shape)
        if counts is None:
            return F.mse_loss(outputs, inputs, reduction="sum") / math.prod(inputs.shape[1:])
        # Each example has as many hidden entries as any other.
        hidden = torch.where(counts, outputs, inputs)
        return F.mse_loss(hidden, inputs, reduction="sum") / counts[0].count_nonzero()


def masked(
    *,
    ratio: Annotated[float, Field(gt=0, lt=1)] = 0.5,
    patch: Annotated[int, Field(gt=0)] | None = None,
) -> Objective:
    """A masked autoencoder: give back what was hidden (He et al. 2021, section 3). Options as for `corruption.mask`."""

    def bind(seed: int, device: torch.device) -> ReconstructionLoss:
        return ReconstructionLoss(
            corrupt=lambda inputs, ids, epoch: mask(inputs, ids, epoch, seed, ratio=ratio, patch=patch)
        )

    return Objective(name="masked", supervised=False, bind=bind)


def denoising(*, std: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 0.3) -> Objective:
    """A denoising autoencoder: give back the input from a noisy copy (Vincent et al. 2008, section 2.3)."""

    def bind(seed: int, device: torch.device) -> ReconstructionLoss:
        return ReconstructionLoss(
            corrupt=lambda inputs, ids, epoch: (add_noise(inputs, ids, epoch, seed, std=std), None)
        )

    return Objective(name="denoising", supervised=False, bind=bind)
