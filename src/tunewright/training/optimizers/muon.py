"""Implement Muon: update the matrices inside a network with their orthogonalised momentum, all other parameters with AdamW.

Jordan et al. 2024 ("Muon: an optimizer for hidden layers in neural networks"); the step size as in Liu et al. 2025 ("Muon is
scalable for LLM training", section 2.2), so that a learning rate and weight decay for AdamW apply here too.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from jaxtyping import Float
from torch import Tensor
from torch.optim import Optimizer

from tunewright.training.optimizers.groups import Group

# The quintic a x + b x³ + c x⁵, which brings every singular value to about 1 within five rounds (Jordan et al. 2024).
QUINTIC = (3.4445, -4.7750, 2.0315)
ROUNDS = 5
# The root mean square of AdamW's steps, relative to its learning rate (Liu et al. 2025, eq. 4).
USUAL_STEP = 0.2


def orthogonalised(matrices: Float[Tensor, "matrices rows columns"]) -> Float[Tensor, "matrices rows columns"]:
    """Approximate U Vᵀ of each matrix's singular value decomposition U S Vᵀ, in float32 or bfloat16."""
    tall = matrices.shape[1] > matrices.shape[2]
    found = matrices.mT if tall else matrices
    found = found / (found.norm(dim=(1, 2), keepdim=True) + 1e-7)
    a, b, c = QUINTIC
    for _ in range(ROUNDS):
        square = found @ found.mT
        found = torch.baddbmm(found, torch.baddbmm(square, square, square, beta=b, alpha=c), found, beta=a)
    return found.mT if tall else found


class Muon(Optimizer):
    """Apply Muon to `matrices` and an AdamW to the rest, with one list of groups and one state for both.

    Args:
        matrices: groups of parameters [rows, columns].
        adam: an AdamW over the other parameters.
    """

    def __init__(self, matrices: Iterable[Group], adam: Optimizer, lr: float, momentum: float) -> None:
        super().__init__(list(matrices), {"lr": lr, "momentum": momentum, "weight_decay": 0.0})
        self.adam = adam
        self.own = len(self.param_groups)
        # The same objects, so that a learning rate or state that is set here is set there.
        self.param_groups += adam.param_groups
        self.state = adam.state
        self.defaults |= {name: value for name, value in adam.defaults.items() if name == "fused"}

    @torch.no_grad()
    def step(self) -> None:  # pyright: ignore[reportIncompatibleMethodOverride]  it takes no closure
        for group in self.param_groups[: self.own]:
            by_shape: dict[torch.Size, list[Tensor]] = {}
            for parameter in group["params"]:
                if parameter.grad is not None:
                    by_shape.setdefault(parameter.shape, []).append(parameter)
            for parameters in by_shape.values():
                self._update(parameters, group)
        self.adam.step()

    def matrices(self) -> set[int]:
        """Return the ids of the parameters that Muon updates."""
        return {id(value) for group in self.param_groups[: self.own] for value in group["params"]}

    def state_like(self, parameter: Tensor) -> dict[str, Tensor]:
        """Return tensors of the shape and type of a parameter's state."""
        if id(parameter) in self.matrices():
            return {"momentum_buffer": parameter}
        return {"step": torch.zeros(()), "exp_avg": parameter, "exp_avg_sq": parameter}

    def _update(self, parameters: list[Tensor], group: Group) -> None:
        """Take one step for matrices of one shape: v ← μ v + g, θ ← θ − η (λ θ + 0.2 √max(rows, columns) · orth(g + μ v))."""
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
