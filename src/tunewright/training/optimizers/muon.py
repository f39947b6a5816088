"""Muon: the matrices inside a network are moved by their orthogonalised momentum, everything else by AdamW.

Jordan et al. 2024 ("Muon: an optimizer for hidden layers in neural networks"); the size of the step as in Liu et al. 2025
("Muon is scalable for LLM training", section 2.2), so that a learning rate and weight decay for AdamW serve here too.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

# The quintic a x + b x³ + c x⁵, which brings every singular value to about 1 within five rounds (Jordan et al. 2024).
QUINTIC = (3.4445, -4.7750, 2.0315)
ROUNDS = 5
# The root mean square of AdamW's steps, as a share of its learning rate (Liu et al. 2025, eq. 4).
USUAL_STEP = 0.2


def orthogonalised(matrices: Tensor) -> Tensor:
    """About U Vᵀ of each matrix's singular value decomposition U S Vᵀ; [N, rows, columns], float32 or bfloat16."""
    tall = matrices.shape[1] > matrices.shape[2]
    found = matrices.mT if tall else matrices
    found = found / (found.norm(dim=(1, 2), keepdim=True) + 1e-7)
    a, b, c = QUINTIC
    for _ in range(ROUNDS):
        square = found @ found.mT
        found = torch.baddbmm(found, torch.baddbmm(square, square, square, beta=b, alpha=c), found, beta=a)
    return found.mT if tall else found


class Muon(Optimizer):
    """Muon for `matrices`, the given AdamW for the rest; one list of groups and one state for both.

    Args:
        matrices: groups of parameters [rows, columns].
        adam: an AdamW over the other parameters.
    """

    def __init__(self, matrices: Iterable[dict[str, Any]], adam: Optimizer, lr: float, momentum: float) -> None:
        super().__init__(list(matrices), {"lr": lr, "momentum": momentum, "weight_decay": 0.0})
        self.adam = adam
        self.own = len(self.param_groups)
        # The same objects, so that a rate or a state that is set here is set there.
        self.param_groups += adam.param_groups
        self.state = adam.state
        self.defaults |= {name: value for name, value in adam.defaults.items() if name == "fused"}

    @torch.no_grad()
    def step(self) -> None:  # pyright: ignore[reportIncompatibleMethodOverride]  nothing here needs a closure
        for group in self.param_groups[: self.own]:
            by_shape: dict[torch.Size, list[Tensor]] = {}
            for parameter in group["params"]:
                if parameter.grad is not None:
                    by_shape.setdefault(parameter.shape, []).append(parameter)
            for parameters in by_shape.values():
                self._move(parameters, group)
        self.adam.step()

    def matrices(self) -> set[int]:
        """The ids of the parameters that Muon moves."""
        return {id(value) for group in self.param_groups[: self.own] for value in group["params"]}

    def _move(self, parameters: list[Tensor], group: dict[str, Any]) -> None:
        """One step of matrices of one shape: v ← μ v + g, θ ← θ − η (λ θ + 0.2 √max(rows, columns) · orth(g + μ v))."""
        momenta = []
        for parameter in parameters:
            state = self.state[parameter]
            if "momentum_buffer" not in state:
                state["momentum_buffer"] = torch.zeros_like(parameter)
            momenta.append(state["momentum_buffer"])
        gradients = [parameter.grad for parameter in parameters]
        torch._foreach_mul_(momenta, group["momentum"])  # pyright: ignore
        torch._foreach_add_(momenta, gradients)  # pyright: ignore
        looked_ahead = torch.stack(torch._foreach_add(gradients, momenta, alpha=group["momentum"]))  # pyright: ignore
        half = looked_ahead.device.type == "cuda"
        directions = orthogonalised(looked_ahead.bfloat16() if half else looked_ahead).to(parameters[0].dtype)
        size = USUAL_STEP * max(parameters[0].shape) ** 0.5
        torch._foreach_mul_(parameters, 1 - group["lr"] * group["weight_decay"])  # pyright: ignore
        torch._foreach_add_(parameters, list(directions), alpha=-group["lr"] * size)  # pyright: ignore
