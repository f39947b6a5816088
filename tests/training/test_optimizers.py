"""Optimisers: one step by hand, many steps against PyTorch's reference, decoupled decay, and their state as tensors."""

from __future__ import annotations

import copy
import math
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from tunewright.errors import ArtifactError, RecipeError
from tunewright.training.freezing import INSIDE
from tunewright.training.optimizers.registry import (
    OPTIMIZERS,
    build_optimizer,
    default_lr,
    load_state_tensors,
    state_tensors,
)

# Each with PyTorch's own implementation, without fused or foreach kernels.
CASES = {
    "sgd": ("sgd", lambda p, **k: torch.optim.SGD(p, **k)),
    "momentum": ({"sgd": {"momentum": 0.9}}, lambda p, **k: torch.optim.SGD(p, momentum=0.9, **k)),
    "nesterov": (
        {"sgd": {"momentum": 0.9, "nesterov": True}},
        lambda p, **k: torch.optim.SGD(p, momentum=0.9, nesterov=True, **k),
    ),
    "adam": ("adam", lambda p, **k: torch.optim.Adam(p, **k)),
    "adam_options": (
        {"adam": {"betas": [0.8, 0.95], "eps": 1e-6}},
        lambda p, **k: torch.optim.Adam(p, betas=(0.8, 0.95), eps=1e-6, **k),
    ),
    "adamw": ("adamw", lambda p, **k: torch.optim.AdamW(p, weight_decay=0.0, **k)),
    "adagrad": ("adagrad", lambda p, **k: torch.optim.Adagrad(p, **k)),
    "rmsprop": ("rmsprop", lambda p, **k: torch.optim.RMSprop(p, **k)),
    "rmsprop_options": (
        {"rmsprop": {"alpha": 0.9, "momentum": 0.5, "eps": 1e-6}},
        lambda p, **k: torch.optim.RMSprop(p, alpha=0.9, momentum=0.5, eps=1e-6, **k),
    ),
}


def network(seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(6, 9), nn.Tanh(), nn.Linear(9, 3))


def groups(model: nn.Module, lr: float = 0.01) -> list[dict]:
    """As `freezing.parameter_groups` makes them: two groups, the second with half the learning rate."""
    first, last = list(model[0].parameters()), list(model[2].parameters())
    return [
        {"params": values, "lr": rate, "base_lr": rate, INSIDE: [value.dim() == 2 for value in values]}
        for values, rate in ((first, lr), (last, lr / 2))
    ]


def take_steps(model: nn.Module, optimizer: torch.optim.Optimizer, count: int, start: int = 0) -> None:
    for step in range(start, start + count):
        generator = torch.Generator().manual_seed(step)
        inputs = torch.randn(16, 6, generator=generator).to(next(model.parameters()).dtype)
        target = torch.randint(0, 3, (16,), generator=generator)
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(inputs), target).backward()
        optimizer.step()


def names_of(model: nn.Module, optimizer: torch.optim.Optimizer) -> list[str]:
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    return [names[id(parameter)] for group in optimizer.param_groups for parameter in group["params"]]


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_equals_pytorchs_reference(case: str, dtype: torch.dtype) -> None:
    named, reference = CASES[case]
    ours, theirs = network().to(dtype), network().to(dtype)
    plain = reference(groups(theirs), lr=0.01, foreach=False)
    take_steps(ours, build_optimizer(named, groups(ours), 0.01, 0.0), 30)
    take_steps(theirs, plain, 30)
    tolerance = 1e-5 if dtype == torch.float32 else 1e-12
    for mine, other in zip(ours.parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(mine, other, rtol=tolerance, atol=tolerance)
    assert not torch.equal(ours[0].weight, network().to(dtype)[0].weight)


def hand_computed() -> dict[str, float]:
    """θ after two steps from θ = 1 with the gradients 0.5 and −0.25, η = 0.1."""
    g1, g2, lr = 0.5, -0.25, 0.1
    momentum = 1 - lr * g1 - lr * (0.9 * g1 + g2)
    nesterov = 1 - lr * (g1 + 0.9 * g1) - lr * (g2 + 0.9 * (0.9 * g1 + g2))
    m1, v1 = 0.1 * g1, 0.001 * g1**2
    m2, v2 = 0.9 * m1 + 0.1 * g2, 0.999 * v1 + 0.001 * g2**2
    adam = 1 - lr * 1.0 - lr * (m2 / (1 - 0.9**2)) / math.sqrt(v2 / (1 - 0.999**2))
    adagrad = 1 - lr * g1 / g1 - lr * g2 / math.sqrt(g1**2 + g2**2)
    s1 = 0.01 * g1**2
    rmsprop = 1 - lr * g1 / math.sqrt(s1) - lr * g2 / math.sqrt(0.99 * s1 + 0.01 * g2**2)
    return {
        "sgd": 1 - lr * g1 - lr * g2,
        "momentum": momentum,
        "nesterov": nesterov,
        "adam": adam,
        "adamw": adam,
        "adagrad": adagrad,
        "rmsprop": rmsprop,
    }


def two_steps(named, weight_decay: float = 0.0) -> float:
    theta = nn.Parameter(torch.tensor([1.0], dtype=torch.float64))
    optimizer = build_optimizer(named, [{"params": [theta]}], 0.1, weight_decay)
    for gradient in (0.5, -0.25):
        theta.grad = torch.tensor([gradient], dtype=torch.float64)
        optimizer.step()
    return theta.item()


@pytest.mark.parametrize(("case", "expected"), hand_computed().items())
def test_two_steps_by_hand(case: str, expected: float) -> None:
    assert two_steps(CASES[case][0]) == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("case", CASES)
def test_decay_is_decoupled(case: str) -> None:
    """With no gradient signal at all only the decay acts: θ is (1 − η λ)ⁿ after n steps, whatever the optimiser."""
    theta = nn.Parameter(torch.tensor([2.0], dtype=torch.float64))
    optimizer = build_optimizer(CASES[case][0], [{"params": [theta]}], 0.1, 0.3)
    for _ in range(3):
        theta.grad = torch.zeros_like(theta)
        optimizer.step()
    assert theta.item() == pytest.approx(2 * (1 - 0.1 * 0.3) ** 3, rel=1e-12)


def test_sgdw_by_hand() -> None:
    assert two_steps("sgd", weight_decay=0.3) == pytest.approx((0.97 * 1 - 0.05) * 0.97 + 0.025, rel=1e-12)
    with_momentum = (0.97 * 1 - 0.05) * 0.97 - 0.1 * (0.9 * 0.5 - 0.25)
    assert two_steps({"sgd": {"momentum": 0.9}}, weight_decay=0.3) == pytest.approx(with_momentum, rel=1e-12)


@pytest.mark.parametrize("name", ["adam", "adamw"])
def test_adam_decays_as_adamw_and_not_as_l2(name: str) -> None:
    ours, adamw, l2 = network(), network(), network()
    take_steps(ours, build_optimizer(name, groups(ours), 0.01, 0.1), 20)
    take_steps(adamw, torch.optim.AdamW(groups(adamw), weight_decay=0.1, foreach=False), 20)
    take_steps(l2, torch.optim.Adam(groups(l2), weight_decay=0.1, foreach=False), 20)
    torch.testing.assert_close(ours[0].weight, adamw[0].weight, rtol=1e-5, atol=1e-6)
    assert (ours[0].weight - l2[0].weight).abs().max() > 1e-2


def test_decay_follows_the_learning_rate_of_the_step_and_of_the_group() -> None:
    first, second = nn.Parameter(torch.ones(1)), nn.Parameter(torch.ones(1))
    optimizer = build_optimizer("sgd", [{"params": [first], "lr": 0.1}, {"params": [second], "lr": 0.2}], 0.1, 0.5)
    first.grad, second.grad = torch.zeros(1), torch.zeros(1)
    optimizer.step()
    assert first.item() == pytest.approx(0.95) and second.item() == pytest.approx(0.9)
    optimizer.param_groups[0]["lr"] = 0.4
    optimizer.step()
    assert first.item() == pytest.approx(0.95 * 0.8)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_what_has_no_gradient_stays(name: str) -> None:
    """A block that is frozen for now must not be moved by the decay either."""
    moved, still = nn.Parameter(torch.ones(2)), nn.Parameter(torch.ones(2))
    inner, frozen = nn.Parameter(torch.eye(2)), nn.Parameter(torch.eye(2))
    group = {"params": [moved, still, inner, frozen], INSIDE: [False, False, True, True]}
    optimizer = build_optimizer(name, [group], 0.1, 0.5)
    moved.grad, inner.grad = torch.ones(2), torch.eye(2)
    optimizer.step()
    assert torch.equal(still.detach(), torch.ones(2)) and torch.equal(frozen.detach(), torch.eye(2))
    assert not torch.equal(moved.detach(), torch.ones(2)) and not torch.equal(inner.detach(), torch.eye(2))


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("weight_decay", [0.0, 0.1])
def test_state_survives_a_file_bit_by_bit(case: str, weight_decay: float, tmp_path: Path) -> None:
    """Ten steps, a safetensors file, ten steps in a new optimiser: the same bits as twenty steps at once."""
    named = CASES[case][0]
    straight = network()
    optimizer = build_optimizer(named, groups(straight), 0.01, weight_decay)
    take_steps(straight, optimizer, 10)
    halfway = copy.deepcopy(straight)
    before = {key: value.clone() for key, value in state_tensors(optimizer, names_of(straight, optimizer)).items()}
    save_file(before, tmp_path / "optimizer.safetensors")
    take_steps(straight, optimizer, 10, start=10)

    again = build_optimizer(named, groups(halfway), 0.01, weight_decay)
    names = names_of(halfway, again)
    load_state_tensors(again, names, load_file(tmp_path / "optimizer.safetensors"))
    after = state_tensors(again, names)
    assert after.keys() == before.keys()
    assert all(torch.equal(after[key], before[key]) and after[key].dtype == before[key].dtype for key in before)
    take_steps(halfway, again, 10, start=10)
    for mine, other in zip(halfway.parameters(), straight.parameters(), strict=True):
        assert torch.equal(mine, other)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_state_of_a_parameter_that_never_moved(name: str) -> None:
    """As in gradual unfreezing: the first layer has no gradient yet; then both go on together."""

    def train(model: nn.Module, optimizer: torch.optim.Optimizer, first: int, last: int) -> None:
        for step in range(first, last):
            model[0].requires_grad_(step >= 5)
            take_steps(model, optimizer, 1, start=step)

    straight = network()
    optimizer = build_optimizer(name, groups(straight), 0.01, 0.0)
    train(straight, optimizer, 0, 3)
    saved = {key: value.clone() for key, value in state_tensors(optimizer, names_of(straight, optimizer)).items()}
    halfway = copy.deepcopy(straight)
    train(straight, optimizer, 3, 8)
    again = build_optimizer(name, groups(halfway), 0.01, 0.0)
    load_state_tensors(again, names_of(halfway, again), saved)
    train(halfway, again, 3, 8)
    for mine, other in zip(halfway.parameters(), straight.parameters(), strict=True):
        assert torch.equal(mine, other)


def test_loading_copies_and_replaces() -> None:
    model = network()
    optimizer = build_optimizer("adam", groups(model), 0.01, 0.0)
    names = names_of(model, optimizer)
    fresh = {key: value.clone() for key, value in state_tensors(optimizer, names).items()}
    take_steps(model, optimizer, 2)
    saved = {key: value.clone() for key, value in state_tensors(optimizer, names).items()}
    kept = {key: value.clone() for key, value in saved.items()}
    load_state_tensors(optimizer, names, saved)
    take_steps(model, optimizer, 2)
    assert all(torch.equal(saved[key], kept[key]) for key in saved), "the next steps must not write into what was given"
    assert fresh == {}
    load_state_tensors(optimizer, names, fresh)
    assert state_tensors(optimizer, names).keys() == fresh.keys(), "a state from before the first step has no counters"


def adam_state() -> tuple[torch.optim.Optimizer, list[str], dict[str, Tensor]]:
    model = network()
    optimizer = build_optimizer("adam", groups(model), 0.01, 0.0)
    take_steps(model, optimizer, 2)
    names = names_of(model, optimizer)
    return optimizer, names, {key: value.clone() for key, value in state_tensors(optimizer, names).items()}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: t.update({"state/9.weight/step": torch.ones(())}), "belongs to no trained parameter"),
        (lambda t: t.update({"exp_avg": torch.ones(3)}), "belongs to no trained parameter"),
        (lambda t: t.pop("state/0.weight/exp_avg"), "0.weight: another optimiser's"),
        (lambda t: t.update({"state/0.bias/sum": t["state/0.bias/exp_avg"]}), "0.bias: another optimiser's"),
        (lambda t: t.update({"state/0.bias/exp_avg": torch.ones(8)}), "0.bias: exp_avg is of another shape"),
        (lambda t: t.update({"state/0.bias/exp_avg": torch.ones(9).double()}), "0.bias: exp_avg is of another shape"),
        (lambda t: t.update({"state/0.bias/step": torch.ones(9)}), "0.bias: step is of another shape"),
    ],
)
def test_a_state_that_does_not_fit(change, message: str) -> None:
    optimizer, names, tensors = adam_state()
    before = {key: value.clone() for key, value in tensors.items()}
    change(tensors)
    with pytest.raises(ArtifactError) as caught:
        load_state_tensors(optimizer, names, tensors)
    assert message in str(caught.value)
    assert caught.value.fix
    after = state_tensors(optimizer, names)
    assert all(torch.equal(after[key], before[key]) for key in before), "nothing was changed"


@pytest.mark.parametrize("name", ["sgd", "adagrad", "rmsprop"])
def test_the_state_of_another_optimiser(name: str) -> None:
    _, names, tensors = adam_state()
    with pytest.raises(ArtifactError, match="another optimiser's"):
        load_state_tensors(build_optimizer(name, groups(network()), 0.01, 0.0), names, tensors)


def test_adagrad_has_a_state_from_the_start() -> None:
    model = network()
    optimizer = build_optimizer("adagrad", groups(model), 0.01, 0.0)
    names = names_of(model, optimizer)
    with pytest.raises(ArtifactError, match=r"another optimiser's(.|\n)*found: +nothing"):
        load_state_tensors(optimizer, names, {})


def test_usual_learning_rates() -> None:
    rates = {name: default_lr(name) for name in OPTIMIZERS}
    assert rates == {
        "sgd": 1e-2,
        "adam": 1e-3,
        "adamw": 1e-3,
        "adagrad": 1e-2,
        "rmsprop": 1e-3,
        "muon": 1e-3,
        "rowwise_adagrad": 1e-2,
        "adamw_8bit": 1e-3,
    }
    assert default_lr({"sgd": {"momentum": 0.9}}) == 1e-2


@pytest.mark.parametrize(
    ("named", "place"),
    [
        ("adma", "train.optimizer"),
        ({"sgd": {"momentun": 0.9}}, "train.optimizer.sgd.momentun"),
        ({"sgd": {"nesterov": True}}, "train.optimizer.sgd"),
        ({"sgd": {"momentum": 1.5}}, "train.optimizer.sgd.momentum"),
        ({"sgd": {"weight_decay": 0.1}}, "train.optimizer.sgd.weight_decay"),
        ({"adam": {"betas": 0.9}}, "train.optimizer.adam.betas"),
        ({"adam": {"betas": [0.9, 1.0]}}, "train.optimizer.adam.betas"),
        ({"rmsprop": {"eps": 0}}, "train.optimizer.rmsprop.eps"),
        ({"adam": {}, "sgd": {}}, "train.optimizer"),
    ],
)
def test_bad_recipes(named, place: str) -> None:
    with pytest.raises(RecipeError) as caught:
        build_optimizer(named, groups(network()), 0.01, 0.0)
    assert caught.value.place == place
    assert caught.value.fix
