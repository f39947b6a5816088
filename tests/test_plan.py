"""Planning: bytes that are alive, traced against sums by hand; a plan against the run that it foretells."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from tunewright.planning.tracing import Tracer
from tunewright.stages.console import silent
from tunewright.stages.plan import plan, print_plan
from tunewright.stages.run import run

FLOAT = 4


def test_what_is_alive_is_counted_and_what_is_gone_is_not() -> None:
    already = torch.zeros(100)
    tracer = Tracer([already])
    with tracer:
        tracer.phase = "first"
        held = torch.ones(1000)
        view = held[10:20].view(2, 5)
        assert tracer.alive == (100 + 1000) * FLOAT
        tracer.phase = "second"
        held2 = held * 2
        del held2
        tracer.phase = "third"
        small = torch.ones(10)
    assert tracer.alive == (100 + 1000 + 10) * FLOAT and tracer.peak == (100 + 2000) * FLOAT
    assert tracer.peak_phase == "second" and "mul" in tracer.peak_operation
    del held, small
    assert tracer.alive == (100 + 1000) * FLOAT  # the view holds it
    del view
    assert tracer.alive == 100 * FLOAT


def test_a_training_step_takes_what_its_parts_take() -> None:
    """A product of 64 × 256 by 256 × 512, ReLU, and one more by 512 × 8."""
    torch.manual_seed(0)
    first, last = torch.nn.Linear(256, 512, bias=False), torch.nn.Linear(512, 8, bias=False)
    optimizer = torch.optim.SGD([first.weight, last.weight], lr=0.1, foreach=False)
    inputs = torch.randn(64, 256)
    tracer = Tracer([first.weight, last.weight, inputs])
    with tracer:
        loss = last(first(inputs).relu()).square().sum()
        loss.backward()
        optimizer.step()
    weights = 256 * 512 + 512 * 8
    # Weights, input, activation; in the backward pass both gradients of weights with that of the activation.
    least = (weights + 64 * 256 + 64 * 512 + weights) * FLOAT
    assert least <= tracer.peak <= least + 3 * 64 * 512 * FLOAT


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("plan")
    lines = ["a,b,c,label", *(f"{row % 7},{row % 5},{row % 3},{'xy'[row % 2]}" for row in range(400))]
    (folder / "rows.csv").write_text("\n".join(lines) + "\n")
    recipe: dict[str, Any] = {
        "task": "tabular-classification",
        "data": {"source": "rows.csv", "target": "label", "split": {"valid": 0.1, "test": 0.1}},
        "model": {"backbone": {"mlp": {"hidden": [64, 32]}}},
        "train": {"epochs": 3, "batch_size": 32},
        "eval": {"resamples": 100},
        "stages": ["pretrain", {"finetune": {"tune": {"freeze": "backbone"}, "train": {"epochs": 2}}}],
    }
    (folder / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    return folder


def test_a_plan_is_what_the_run_does(place: Path) -> None:
    first, second = plan(place / "recipe.yaml", [], screen=silent())
    done = run(place / "recipe.yaml", runs=place / "runs", screen=silent())
    for found in (first, second):
        summary = done.stages[found.stage].summary
        assert found.steps == summary["training"]["steps"]
        assert (found.parameters, found.trained) == tuple(
            summary["model"]["parameters"][name] for name in ("total", "trainable")
        )
        assert found.weights == FLOAT * found.parameters and found.gradients == FLOAT * found.trained
        # Adam: two numbers for each that is trained, and a counter for each tensor.
        assert found.optimizer == pytest.approx(2 * FLOAT * found.trained, rel=0.05)
        assert found.peak > found.weights + found.gradients
        assert 0 < found.step_seconds[0] <= found.step_seconds[1] <= found.step_seconds[2]
        folder = done.stages[found.stage].folder
        stored = sum(file.stat().st_size for file in folder.rglob("*.safetensors"))
        assert 0.2 * found.disk < stored < 2 * found.disk + 20_000
    # Forwards once, backwards twice where all is trained; but for the first layer, below which nothing is.
    per_example = first.flops / (3 * first.examples)
    forward = done.stages["pretrain"].summary["model"]["flops_per_example"]
    assert 2 * forward < per_example < 3 * forward
    assert second.flops / (2 * second.examples) < 1.2 * forward


def test_a_plan_as_json(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    print_plan(place / "recipe.yaml", ["train.batch_size=16"], as_json=True)
    first, _ = json.loads(capsys.readouterr().out)
    assert first["stage"] == "pretrain" and first["steps"] == 3 * 20
    print_plan(place / "recipe.yaml", [], as_json=False)
    said = capsys.readouterr().out
    assert "measured here" in said and "of tensors at most" in said
