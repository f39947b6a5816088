"""What a network gives for every example of a split."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from tunewright.data.batches.batch import Examples
from tunewright.data.batches.sampler import EVALUATION_BATCH, of_all


def run_network(network: nn.Module, examples: Examples) -> Tensor:
    """Return the network's outputs [N, ...] for all examples in their own order, float32 on the CPU."""
    network.eval()
    device = next(network.parameters()).device
    with torch.inference_mode():
        (outputs,) = of_all(examples.to(device), EVALUATION_BATCH, lambda inputs: [network(inputs).cpu()])
    return outputs


def add_tokens(outputs: np.ndarray, target: np.ndarray, place: np.ndarray, losses: Tensor, right: Tensor) -> None:
    """Add what was found for M tokens to the rows of their texts: the loss, whether it was named, and one to the count.

    Args:
        outputs: [N, 2 or more], of which the first two columns are added to; target: [N] int64.
        place: [M] the row that each token belongs to.
        losses: [M]; right: [M] bool.
    """
    for column, values in enumerate((losses, right)):
        outputs[:, column] += np.bincount(place, values.double().cpu().numpy(), minlength=len(target))
    target += np.bincount(place, minlength=len(target))
