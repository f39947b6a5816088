"""Take the optimiser's step in the backward pass: each parameter is updated when its gradient is ready, which is then freed.

Only a few gradients are in memory at any time (Lv et al. 2023, "Full Parameter Fine-tuning for Large Language Models with Limited
Resources", section 3.1). The result is the same, as no optimiser here combines several parameters; rules over all gradients, such
as clipping to their norm, are not possible.
"""

from __future__ import annotations

from torch import Tensor
from torch.optim import Optimizer

from tunewright.training.optimizers.groups import Group


def step_in_backward(optimizer: Optimizer) -> None:
    """Let the backward pass take the optimiser's steps from now on; `step` then does nothing."""
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            trained = parameter.requires_grad
            parameter.requires_grad_(True)  # a frozen parameter, which may be unfrozen later, takes no hook
            parameter.register_post_accumulate_grad_hook(lambda updated, group=group: _step(optimizer, group, updated))
            parameter.requires_grad_(trained)


def _step(optimizer: Optimizer, group: Group, parameter: Tensor) -> None:
    groups = optimizer.param_groups
    optimizer.param_groups = [{**group, "params": [parameter]}]
    try:
        optimizer.step()
    finally:
        optimizer.param_groups = groups
    parameter.grad = None
