"""What is reached without any skill: the commonest class, the prior, the mean, and a linear model on the raw inputs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy, linear

from tunewright.random import permutation

# The linear model sees at most so many training rows: more would change its figure little and cost the user time.
MOST_ROWS = 10_000
L2 = 1e-3


@dataclass(frozen=True)
class Baseline:
    """A trivial model's outputs on the test rows: logits [N, K], or predictions [N]."""

    name: str
    outputs: np.ndarray


def sample_rows(count: int, seed: int) -> np.ndarray:
    """Which of `count` training rows the linear model sees, in order."""
    return np.sort(permutation(seed, "baseline", 0, count)[:MOST_ROWS])


def baselines(
    kind: Literal["classification", "regression"],
    all_target: Tensor,
    train_inputs: Tensor,
    train_target: Tensor,
    test_inputs: Tensor,
    *,
    outputs: int,
) -> list[Baseline]:
    """The baselines of a task.

    Args:
        all_target: [N] class indices or numbers of all training rows.
        train_inputs, train_target: [n, …] float32 and [n], the rows of `sample_rows`.
        test_inputs: [M, …] float32.
        outputs: the number of classes.
    """
    count = len(test_inputs)
    rows = f" ({len(train_target):,} training rows)" if len(train_target) < len(all_target) else ""
    name = f"linear model on raw inputs{rows}"
    inputs, test = train_inputs.flatten(1), test_inputs.flatten(1)
    if kind == "regression":
        values = all_target.double().numpy()
        return [
            Baseline("mean", np.full(count, values.mean())),
            Baseline("median", np.full(count, np.median(values))),
            Baseline(name, _ridge(inputs, train_target, test)),
        ]
    shares = np.bincount(all_target.numpy(), minlength=outputs) / len(all_target)
    # Certainty of the commonest class is written as a large finite logit, so that the log loss stays finite.
    majority = np.where(np.arange(outputs) == shares.argmax(), 10.0, 0.0)
    return [
        Baseline("majority class", np.tile(majority, (count, 1))),
        Baseline("class prior", np.tile(np.log(np.maximum(shares, 1e-9)), (count, 1))),
        Baseline(name, _logistic(inputs, train_target, test, outputs)),
    ]


def _standardised(train: Tensor, test: Tensor) -> tuple[Tensor, Tensor]:
    mean, std = train.mean(0), train.std(0, unbiased=False)
    std = torch.where(std > 0, std, torch.ones_like(std))
    return (train - mean) / std, (test - mean) / std


def _logistic(train: Tensor, target: Tensor, test: Tensor, classes: int) -> np.ndarray:
    """Multinomial logistic regression by L-BFGS, mean cross entropy + L2 ‖W‖², as logits on the test rows."""
    from scipy.optimize import minimize

    train, test = _standardised(train, test)
    width = train.shape[1]

    def split(flat: np.ndarray) -> tuple[Tensor, Tensor]:
        values = torch.from_numpy(flat.astype(np.float32))
        return values[:-classes].reshape(classes, width), values[-classes:]

    def loss_and_gradient(flat: np.ndarray) -> tuple[float, np.ndarray]:
        weight, bias = split(flat)
        loss = cross_entropy(linear(train, weight.requires_grad_(), bias.requires_grad_()), target)
        loss = loss + L2 * weight.square().sum()
        gradients = torch.autograd.grad(loss, [weight, bias])
        return loss.item(), torch.cat([gradient.reshape(-1) for gradient in gradients]).double().numpy()

    start = np.zeros(classes * (width + 1))
    found = minimize(loss_and_gradient, start, jac=True, method="L-BFGS-B", options={"maxiter": 60})
    return linear(test, *split(found.x)).double().numpy()


def _ridge(train: Tensor, target: Tensor, test: Tensor) -> np.ndarray:
    """Ridge regression in closed form: (XᵀX / N + L2 I)⁻¹ Xᵀy / N."""
    train, test = _standardised(train.double(), test.double())
    centre = target.double().mean()
    count, width = train.shape
    gram = train.T @ train / count + L2 * torch.eye(width, dtype=torch.float64)
    weight = torch.linalg.solve(gram, train.T @ (target.double() - centre) / count)
    return (test @ weight + centre).numpy()
