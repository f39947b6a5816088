"""Implement Adagrad with one accumulator per row of a table instead of one per entry (as in Gupta et al. 2014, section 3.2).

s ← s + mean over the row of g², θ ← θ − η g / (√s + ε). Rows without a gradient do not change, so that the time of a step depends
on the rows that were looked up and not on the size of the table. A vector has an accumulator per element, as in Adagrad.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from jaxtyping import Float
from torch import Tensor
from torch.optim import Optimizer

from tunewright.training.optimizers.groups import Group


class RowwiseAdagrad(Optimizer):
    """Update parameters with dense or sparse gradients."""

    def __init__(self, groups: Iterable[Group], lr: float, eps: float) -> None:
        super().__init__(list(groups), {"lr": lr, "eps": eps, "weight_decay": 0.0})

    def step(self) -> None:  # pyright: ignore[reportIncompatibleMethodOverride]  it takes no closure
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is None:
                    continue
                state = self.state[parameter]
                if not state:
                    state["sum"] = torch.zeros_like(self.state_like(parameter)["sum"])
                self._update(parameter, parameter.grad, state["sum"], group["lr"], group["eps"])

    def state_like(self, parameter: Tensor) -> dict[str, Tensor]:
        """Return tensors of the shape and type of a parameter's state."""
        return {"sum": parameter.new_empty(len(parameter) if parameter.dim() else 1)}

    @staticmethod
    @torch.no_grad()
    def _update(
        parameter: Float[Tensor, "*shape"],
        gradient: Float[Tensor, "*shape"],
        sums: Float[Tensor, " _"],
        lr: float,
        eps: float,
    ) -> None:
        if not gradient.is_sparse:
            flat = gradient.reshape(len(sums), -1)
            sums += flat.square().mean(1)
            parameter -= (lr * flat / (sums.sqrt() + eps)[:, None]).view_as(parameter)
            return
        gathered = gradient.coalesce()
        rows, values = gathered.indices()[0], gathered.values()
        sums.index_add_(0, rows, values.square().mean(1))
        parameter.index_add_(0, rows, values / (sums[rows].sqrt() + eps)[:, None], alpha=-lr)
