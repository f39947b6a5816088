"""Define the losses of autoencoders, which reconstruct the input from a masked or noisy copy."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated

import torch
from jaxtyping import Bool, Float, Int
from pydantic import Field
from torch import Tensor
from torch.nn import functional as F

from tunewright.data.batches.batch import Batch, Inputs
from tunewright.training.objectives.base import LabelSettings, NamedObjective, Objective, Scalar, wrong_size
from tunewright.training.objectives.corruption import add_noise, mask


@dataclass(frozen=True, kw_only=True)
class ReconstructionLoss:
    """Compute the error of reconstructing the input from a corrupted copy, without labels.

    The loss of an example is the mean squared error over its hidden entries (where `corrupt` returns a mask), or over all.
    """

    corrupt: Callable[
        [Float[Tensor, " batch *dims"], Int[Tensor, " batch"], int],
        tuple[Float[Tensor, " batch *dims"], Bool[Tensor, " batch *dims"] | None],
    ]
    """(inputs, the examples' numbers, epoch) → the corrupted inputs, and a mask that is true where the error counts."""

    def weight(self, batch: Batch) -> float:
        """Return the number of examples."""
        return batch.ids.shape[0]

    def loss_sum(self, model: Callable[[Inputs], Tensor], batch: Batch, epoch: int) -> Scalar:
        """Return the sum of the examples' losses. The network's output may be flat.

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
    labels: LabelSettings,
    *,
    ratio: Annotated[float, Field(gt=0, lt=1)] = 0.5,
    patch: Annotated[int, Field(gt=0)] | None = None,
) -> Objective:
    """Build a masked autoencoder: reconstruct what is hidden (He et al. 2021, section 3). Options as for `corruption.mask`."""

    def bind(seed: int, device: torch.device) -> ReconstructionLoss:
        return ReconstructionLoss(
            corrupt=lambda inputs, ids, epoch: mask(inputs, ids, epoch, seed, ratio=ratio, patch=patch)
        )

    return Objective(name=MASKED.name, supervised=False, bind=bind)


def denoising(labels: LabelSettings, *, std: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 0.3) -> Objective:
    """Build a denoising autoencoder: reconstruct the input from a noisy copy (Vincent et al. 2008, section 2.3)."""

    def bind(seed: int, device: torch.device) -> ReconstructionLoss:
        return ReconstructionLoss(
            corrupt=lambda inputs, ids, epoch: (add_noise(inputs, ids, epoch, seed, std=std), None)
        )

    return Objective(name=DENOISING.name, supervised=False, bind=bind)


MASKED = NamedObjective(name="masked", target=None, build=masked)
DENOISING = NamedObjective(name="denoising", target=None, build=denoising)
