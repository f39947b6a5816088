"""What a network gives for every example of a split."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from tunewright.data.batching import Examples, in_order

EVALUATION_BATCH = 1024


def run_network(network: nn.Module, examples: Examples) -> Tensor:
    """The network's outputs [N, ...] for all examples in their own order, float32 on the CPU."""
    network.eval()
    device = next(network.parameters()).device
    ids: list[Tensor] = []
    outputs: list[Tensor] = []
    with torch.inference_mode():
        for batch in in_order(examples.to(device), EVALUATION_BATCH):
            ids.append(batch.ids)
            outputs.append(network(batch.inputs).cpu())
    return torch.cat(outputs)[torch.argsort(torch.cat(ids))]
