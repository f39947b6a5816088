"""The learning-rate range test takes the steps of the training itself."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from tiny import texts, tiny_bert
from tunewright.commands.lr_find import Suggestion, find_learning_rate
from tunewright.console import silent
from tunewright.run_recipe import run
from tunewright.runs.metrics_log import read_metrics

DIGITS: dict[str, Any] = {
    "task": "image-classification",
    "data": {"source": "digits", "limit": 300},
    "model": {"layers": ["flatten", {"dense": 16, "activation": "relu"}, {"dense": "auto"}]},
    "eval": {"resamples": 100},
    "hardware": {"threads": 1},
}


def found(folder: Path, recipe: dict[str, Any]) -> Suggestion:
    path = folder / "recipe.yaml"
    path.write_text(yaml.safe_dump(recipe, sort_keys=False))
    return find_learning_rate(path, [], console=silent())


def test_the_first_loss_is_that_of_the_trainings_first_step(tmp_path: Path) -> None:
    recipe = {**DIGITS, "name": "digits", "train": {"epochs": 1, "batch_size": 20, "accumulate": 3}}
    done = run(recipe, runs=tmp_path / "runs", console=silent())
    steps = [
        entry["loss"] for entry in read_metrics(done.folder / "pretrain" / "metrics.jsonl") if entry["kind"] == "step"
    ]
    assert found(tmp_path, recipe).trace[0][1] == pytest.approx(steps[0], rel=1e-6)


def test_a_small_clip_norm_keeps_the_weights_in_place(tmp_path: Path) -> None:
    train = {"optimizer": "sgd"}
    free = found(tmp_path, {**DIGITS, "train": train}).trace
    clipped = found(tmp_path, {**DIGITS, "train": {**train, "clip_norm": 1e-7}}).trace
    assert min(loss for _, loss in free) < 0.7 * free[0][1]
    assert all(loss == pytest.approx(clipped[0][1], rel=0.1) for _, loss in clipped)


def test_a_large_penalty_diverges_at_smaller_rates(tmp_path: Path) -> None:
    train = {"optimizer": "sgd"}
    free = found(tmp_path, {**DIGITS, "train": train}).trace
    # Gradient descent on 1000 θ² diverges from a learning rate of 1/1000 on.
    bound = found(tmp_path, {**DIGITS, "train": {**train, "regularization": {"l2": 1000.0}}}).trace
    assert bound[-1][0] < 0.01 < 0.1 < free[-1][0]


def test_rates_are_those_of_the_recipe_and_not_of_its_fastest_block(tmp_path: Path) -> None:
    rates = [rate for rate, _ in found(tmp_path, {**DIGITS, "tune": {"head_lr_multiplier": 100}}).trace]
    assert rates[0] == pytest.approx(1e-6)


def test_the_precision_is_that_of_the_recipe(tmp_path: Path) -> None:
    texts(tmp_path / "texts.jsonl")
    recipe = {
        "task": "text-classification",
        "data": {"source": str(tmp_path / "texts.jsonl"), "input": "text", "target": "label"},
        "model": {"backbone": str(tiny_bert(tmp_path / "bert"))},
        "stages": ["finetune"],
    }
    first = [
        found(tmp_path, {**recipe, "hardware": {"threads": 1, "precision": precision}}).trace[0][1]
        for precision in ("float32", "bfloat16")
    ]
    # bfloat16 keeps 8 bits: the losses differ, by no more than a few times its epsilon.
    assert first[0] != first[1] and first[1] == pytest.approx(first[0], rel=4 * 2**-7)
