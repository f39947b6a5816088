"""Steps that are taken in the backward pass: each weight moves as soon as its gradient is there, and the gradient goes.

Then no more than a few gradients are in memory at any time (Lv et al. 2023, "Full Parameter Fine-tuning for Large Language Models with Limited
Resources", section 3.1). The numbers are the same, for no optimiser here looks from one weight at another; a rule over all gradients, such as
clipping to their norm, cannot go with it.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor
from torch.optim import Optimizer


def step_in_backward(optimizer: Optimizer) -> None:
    """From now on the backward pass takes the optimiser's steps; `step` finds nothing left to do."""
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            moves = parameter.requires_grad
            parameter.requires_grad_(True)  # one that thaws later can be given no hook before
            parameter.register_post_accumulate_grad_hook(lambda moved, group=group: _step(optimizer, group, moved))
            parameter.requires_grad_(moves)


def _step(optimizer: Optimizer, group: dict[str, Any], parameter: Tensor) -> None:
    groups = optimizer.param_groups
    optimizer.param_groups = [{**group, "params": [parameter]}]
    try:
        optimizer.step()
    finally:
        optimizer.param_groups = groups
    parameter.grad = None
