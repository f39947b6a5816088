"""Schedules: closed forms, PyTorch's schedulers, warm-up, and bad recipes."""

from __future__ import annotations

import math
from itertools import pairwise

import pytest
import torch
from torch.optim import lr_scheduler

from tunewright.errors import RecipeError
from tunewright.training.schedule import SCHEDULES, learning_rate_factor

NAMED = ["constant", "linear", "cosine", "one_cycle", {"step": {"every": 7, "gamma": 0.5}}]


def torch_factors(build, steps: int, lr: float = 1.0) -> list[float]:
    """The learning rates that a scheduler of PyTorch gives for steps 0 … steps − 1."""
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=lr)
    scheduler = build(optimizer)
    rates = []
    for _ in range(steps):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    return rates


@pytest.mark.parametrize(
    ("named", "build"),
    [
        ("constant", lambda o: lr_scheduler.ConstantLR(o, factor=1.0)),
        ("linear", lambda o: lr_scheduler.LinearLR(o, start_factor=1.0, end_factor=0.0, total_iters=50)),
        ("cosine", lambda o: lr_scheduler.CosineAnnealingLR(o, T_max=50)),
        ("one_cycle", lambda o: lr_scheduler.OneCycleLR(o, max_lr=1.0, total_steps=51)),
        ({"step": {"every": 7, "gamma": 0.5}}, lambda o: lr_scheduler.StepLR(o, step_size=7, gamma=0.5)),
    ],
)
def test_equals_pytorch(named, build) -> None:
    steps = 51 if named == "one_cycle" else 50
    factor = learning_rate_factor(named, 0, steps)
    # OneCycleLR refuses to be asked once more than it has steps.
    expected = torch_factors(build, 50)
    assert [factor(step) for step in range(50)] == pytest.approx(expected, rel=1e-9, abs=1e-12)


def test_warm_up_and_cosine_equal_pytorch() -> None:
    def build(optimizer):
        rise = lr_scheduler.LinearLR(optimizer, start_factor=1 / 11, total_iters=10)
        fall = lr_scheduler.CosineAnnealingLR(optimizer, T_max=40)
        return lr_scheduler.SequentialLR(optimizer, [rise, fall], milestones=[10])

    factor = learning_rate_factor("cosine", 10, 50)
    assert [factor(step) for step in range(50)] == pytest.approx(torch_factors(build, 50), rel=1e-9)


def test_closed_forms() -> None:
    assert learning_rate_factor("linear", 0, 10)(3) == pytest.approx(0.7)
    assert learning_rate_factor("cosine", 0, 10)(5) == pytest.approx(0.5)
    assert learning_rate_factor("cosine", 0, 12)(4) == pytest.approx(0.75)  # ½ (1 + cos 60°)
    step = learning_rate_factor({"step": {"every": 3}}, 0, 9)
    assert [step(t) for t in range(9)] == pytest.approx([1, 1, 1, 0.1, 0.1, 0.1, 0.01, 0.01, 0.01])
    share = learning_rate_factor({"step": {"every": 0.5, "gamma": 0.5}}, 0, 8)
    assert [share(t) for t in range(8)] == [1, 1, 1, 1, 0.5, 0.5, 0.5, 0.5]
    cycle = learning_rate_factor("one_cycle", 0, 100)
    assert cycle(0) == pytest.approx(1 / 25)
    assert cycle(29) == pytest.approx(1)
    assert cycle(99) == pytest.approx(1 / 250_000)
    assert cycle(64) == pytest.approx((1 + 1 / 250_000) / 2)  # half-way down


def test_warm_up_rises_linearly_to_the_peak() -> None:
    factor = learning_rate_factor("linear", 4, 14)
    assert [factor(step) for step in range(6)] == pytest.approx([0.2, 0.4, 0.6, 0.8, 1.0, 0.9])
    by_share = learning_rate_factor("linear", 4 / 14, 14)
    assert [factor(step) for step in range(14)] == [by_share(step) for step in range(14)]


@pytest.mark.parametrize("named", NAMED)
@pytest.mark.parametrize("total", [1, 2, 3, 4, 7, 100])
def test_every_step_learns_and_none_passes_the_peak(named, total: int) -> None:
    factor = learning_rate_factor(named, 0, total)
    values = [factor(step) for step in range(total)]
    assert all(0 < value <= 1 and math.isfinite(value) for value in values)
    assert all(0 <= factor(step) <= 1 for step in range(total, total + 3)), "a step too many is harmless"


@pytest.mark.parametrize("named", ["linear", "cosine"])
def test_falls_without_pause(named: str) -> None:
    factor = learning_rate_factor(named, 0.1, 200)
    values = [factor(step) for step in range(200)]
    assert values[:21] == sorted(values[:21])
    assert all(before > after for before, after in pairwise(values[20:]))
    assert values[20] == 1.0
    assert factor(200) == pytest.approx(0, abs=1e-12)


def test_a_share_leaves_one_step_for_the_schedule() -> None:
    factor = learning_rate_factor("constant", 0.9, 2)
    assert [factor(0), factor(1)] == [0.5, 1.0]
    assert learning_rate_factor("constant", 0.9, 1)(0) == 1.0


@pytest.mark.parametrize(
    ("named", "warmup", "place", "fix"),
    [
        ("cosin", 0, "train.schedule", "did you mean cosine?"),
        ({"cosine": {"cycles": 2}}, 0, "train.schedule.cosine.cycles", "write only cosine"),
        ("step", 0, "train.schedule.step", "write {step: {every: …}}"),
        ({"step": {"every": 0}}, 0, "train.schedule.step.every", None),
        ({"step": {"every": 2.5}}, 0, "train.schedule.step.every", None),
        ({"step": {"every": float("inf")}}, 0, "train.schedule.step.every", None),
        ({"step": {"every": 2, "gamma": 2}}, 0, "train.schedule.step.gamma", None),
        ("one_cycle", 0.1, "train.warmup", None),
        ("linear", 100, "train.warmup", None),
        ("linear", 1.5, "train.warmup", None),
        ("linear", float("inf"), "train.warmup", None),
        ({"linear": {}, "cosine": {}}, 0, "train.schedule", None),
    ],
)
def test_bad_recipes(named, warmup: float, place: str, fix: str | None) -> None:
    with pytest.raises(RecipeError) as caught:
        learning_rate_factor(named, warmup, 100)
    assert caught.value.place == place
    assert caught.value.fix
    assert fix is None or caught.value.fix == fix


def test_table_is_complete() -> None:
    assert sorted(SCHEDULES) == ["constant", "cosine", "linear", "one_cycle", "step", "wsd"]


def test_wsd_stays_and_then_falls() -> None:
    factor = learning_rate_factor("wsd", 0.0, 100)
    assert [factor(step) for step in (0, 50, 80)] == [1.0, 1.0, 1.0]
    assert factor(90) == pytest.approx(0.5) and factor(99) == pytest.approx(0.05)
    assert learning_rate_factor({"wsd": {"decay": 10}}, 5, 100)(94) == pytest.approx(0.6)
