"""Adagrad with one number for each row of a table in place of one for each of its numbers (as in Gupta et al. 2014, section 3.2).

s ← s + mean over the row of g², θ ← θ − η g / (√s + ε). Rows without a gradient stay as they are, so that a step takes as long as what
was looked up, however large the table. A vector has a number for each of its elements: there it is Adagrad.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer


class RowwiseAdagrad(Optimizer):
    """For dense and sparse gradients."""

    def __init__(self, groups: Iterable[dict[str, Any]], lr: float, eps: float) -> None:
        super().__init__(list(groups), {"lr": lr, "eps": eps, "weight_decay": 0.0})

    def step(self) -> None:  # pyright: ignore[reportIncompatibleMethodOverride]  there is no closure here
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is None:
                    continue
                state = self.state[parameter]
                if not state:
                    state["sum"] = parameter.new_zeros(len(parameter) if parameter.dim() else 1)
                self._move(parameter, parameter.grad, state["sum"], group["lr"], group["eps"])

    @staticmethod
    @torch.no_grad()
    def _move(parameter: Tensor, gradient: Tensor, sums: Tensor, lr: float, eps: float) -> None:
        if not gradient.is_sparse:
            flat = gradient.reshape(len(sums), -1)
            sums += flat.square().mean(1)
            parameter -= (lr * flat / (sums.sqrt() + eps)[:, None]).view_as(parameter)
            return
        gathered = gradient.coalesce()
        rows, values = gathered.indices()[0], gathered.values()
        sums.index_add_(0, rows, values.square().mean(1))
        parameter.index_add_(0, rows, values / (sums[rows].sqrt() + eps)[:, None], alpha=-lr)
