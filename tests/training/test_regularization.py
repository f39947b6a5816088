"""The penalties: value and gradient by hand, PyTorch's autograd, and their place in a whole step."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from tunewright.training.regularization import penalty


def test_value_and_gradient_by_hand() -> None:
    weight = nn.Parameter(torch.tensor([[1.0, -2.0], [0.0, 3.0]]))
    bias = nn.Parameter(torch.tensor([-0.5]))
    value = penalty([weight, bias], l1=0.1, l2=0.01)
    assert value.item() == pytest.approx(0.1 * 6.5 + 0.01 * 14.25)
    value.backward()
    torch.testing.assert_close(weight.grad, torch.tensor([[0.1 + 0.02, -0.1 - 0.04], [0.0, 0.1 + 0.06]]))
    torch.testing.assert_close(bias.grad, torch.tensor([-0.1 - 0.01]))


@pytest.mark.parametrize(("l1", "l2"), [(0.3, 0.0), (0.0, 0.7), (0.3, 0.7)])
def test_gradient_is_l1_sign_plus_two_l2_theta(l1: float, l2: float) -> None:
    torch.manual_seed(0)
    parameters = [nn.Parameter(torch.randn(shape, dtype=torch.float64)) for shape in ((5, 3), (3,), (2, 1, 3, 3))]
    penalty(parameters, l1, l2).backward()
    for parameter in parameters:
        theta = parameter.detach()
        torch.testing.assert_close(parameter.grad, l1 * theta.sign() + 2 * l2 * theta, rtol=0, atol=1e-15)
    flat = torch.cat([parameter.detach().reshape(-1) for parameter in parameters])
    expected = l1 * torch.linalg.vector_norm(flat, 1) + l2 * torch.linalg.vector_norm(flat) ** 2
    torch.testing.assert_close(penalty(parameters, l1, l2).detach().double(), expected)
    assert torch.autograd.gradcheck(lambda *values: penalty(values, l1, l2), parameters)


def test_only_what_is_trained_counts() -> None:
    trained, frozen = nn.Parameter(torch.ones(3)), nn.Parameter(torch.ones(100), requires_grad=False)
    assert penalty([trained, frozen], l1=1.0, l2=1.0).item() == 6.0
    assert penalty([frozen], l1=1.0, l2=1.0).item() == 0.0
    assert penalty([trained], l1=0.0, l2=0.0).item() == 0.0


def test_l2_equals_sgd_with_pytorchs_weight_decay() -> None:
    """PyTorch's SGD adds its weight_decay times θ to the gradient: our λ₂ is half of it."""
    torch.manual_seed(0)
    ours, theirs = nn.Linear(4, 2), nn.Linear(4, 2)
    theirs.load_state_dict(ours.state_dict())
    inputs, target = torch.randn(8, 4), torch.randn(8, 2)
    (nn.functional.mse_loss(ours(inputs), target) + penalty(ours.parameters(), l1=0.0, l2=0.05)).backward()
    nn.functional.mse_loss(theirs(inputs), target).backward()
    torch.optim.SGD(ours.parameters(), lr=0.1).step()
    torch.optim.SGD(theirs.parameters(), lr=0.1, weight_decay=0.1).step()
    for mine, reference in zip(ours.parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(mine, reference)


def test_l1_makes_weights_sparse_and_l2_does_not() -> None:
    """Only the first input matters. The L1 solution of this problem is w₁ = 1 − λ₁/2, the others 0."""
    torch.manual_seed(0)
    # Orthonormal columns: the minimum of the mean square plus penalty is known in closed form for each weight.
    inputs = torch.linalg.qr(torch.randn(64, 5, dtype=torch.float64)).Q * 8
    target = inputs[:, 0] + 0.1 * inputs[:, 1]
    found = {}
    for name, l1, l2 in (("l1", 0.4, 0.0), ("l2", 0.0, 0.25)):
        weights = nn.Parameter(torch.zeros(5, dtype=torch.float64))
        optimizer = torch.optim.SGD([weights], lr=0.01)
        for _ in range(2000):
            optimizer.zero_grad()
            (((inputs @ weights - target) ** 2).mean() + penalty([weights], l1, l2)).backward()
            optimizer.step()
        found[name] = weights.detach()
    # (w − c)² + λ|w| has its minimum at the soft threshold max(0, |c| − λ/2); (w − c)² + λw² at c / (1 + λ).
    torch.testing.assert_close(found["l1"], torch.tensor([0.8, 0, 0, 0, 0]).double(), rtol=0, atol=0.01)
    torch.testing.assert_close(found["l2"], torch.tensor([0.8, 0.08, 0, 0, 0]).double(), rtol=0, atol=1e-6)
