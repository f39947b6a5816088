"""Several processes train what one would: the same weights, each example once, resumed with another number, and one that is lost."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch

from processes import FOLLOWED, started, weights
from small_recipes import RECIPES as CASES
from tiny import texts, tiny_bert
from tunewright.console import silent
from tunewright.data.batches.examples import TensorExamples
from tunewright.data.batches.sampler import Batches
from tunewright.errors import RecipeError
from tunewright.pipeline.train.launch import start_here
from tunewright.run_recipe import run
from tunewright.runs.folder import read_json
from tunewright.runs.metrics_log import read_metrics

QUIET: dict[str, Any] = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}


def on(recipe: dict[str, Any], **hardware: Any) -> dict[str, Any]:
    """Return the recipe for this hardware, in float32: otherwise each process measures which precision is faster."""
    return {**recipe, "hardware": {"precision": "float32", **hardware}}


def recipes(place: Path) -> list[dict[str, Any]]:
    """A task of each kind: an uneven last batch, accumulation, frozen parts, an adapter; 50 steps or more."""
    texts(place / "texts.jsonl")
    bert = str(tiny_bert(place / "bert", **QUIET))
    words = {
        "task": "text-classification",
        "data": {"source": "texts.jsonl", "input": "text", "target": "label"},
        "model": {"backbone": bert},
    }
    layers = [{"conv2d": 4}, "relu", "flatten", {"dense": 24, "activation": "relu"}, {"dense": 10}]
    return [
        {
            "name": "pictures",
            "task": "image-classification",
            "data": {"source": "digits", "limit": 700},
            "model": {"layers": layers},
            "train": {"epochs": 9, "batch_size": 50, "accumulate": 2, "clip_norm": 1.0},
            "stages": ["pretrain", {"finetune": {"tune": {"freeze": "backbone"}}}],
        },
        {
            "name": "texts",
            **words,
            "tune": {"freeze": 2},
            "train": {"epochs": 8, "batch_size": 13},
            "stages": ["finetune"],
        },
        {
            "name": "adapter",
            **words,
            "tune": {"adapter": {"lora": {"dropout": 0.0}}},
            "train": {"epochs": 8, "batch_size": 13},
            "stages": ["finetune"],
        },
        {
            "name": "rows",
            "train": {"epochs": 10, "batch_size": 19},
            **CASES["rows"](place),
            "model": {"layers": [{"dense": 16, "activation": "relu"}, {"dense": 1}]},
        },
        {"name": "writer", "train": {"epochs": 10, "batch_size": 2}, **CASES["writer"](place)},
        {"name": "items", "train": {"epochs": 4, "batch_size": 16}, **CASES["factors"](place)},
        # Not Adam: a key's bias has no gradient but rounding, which Adam would make steps of.
        {
            "name": "speech",
            "train": {"epochs": 12, "batch_size": 5, "optimizer": "sgd", "lr": 1e-3},
            **CASES["conformer"](place),
        },
    ]


STAGES = {"pictures": ["pretrain", "finetune"], "texts": ["finetune"], "adapter": ["finetune"]}


@pytest.mark.parametrize(
    ("size", "strategy", "names"),
    [
        (2, "ddp", ["pictures"]),
        (2, "fsdp", ["texts"]),
        pytest.param(2, "ddp", None, marks=pytest.mark.slow),
        pytest.param(4, "ddp", None, marks=pytest.mark.slow),
        pytest.param(2, "fsdp", None, marks=pytest.mark.slow),
        pytest.param(4, "fsdp", None, marks=pytest.mark.slow),
    ],
)
def test_several_processes_train_what_one_does(
    size: int, strategy: str, names: list[str] | None, tmp_path: Path
) -> None:
    wanted = [recipe for recipe in recipes(tmp_path) if names is None or recipe["name"] in names]
    shared = [on(recipe, strategy=strategy) for recipe in wanted]
    (tmp_path / "recipes.json").write_text(json.dumps(shared))
    (tmp_path / "followed.py").write_text(FOLLOWED)
    # As where the weights lie on an accelerator, whose checkpoints a thread writes while the training goes on.
    processes = started(size, str(tmp_path / "followed.py"), str(tmp_path), "many", "beside" if size == 2 else "")
    for recipe in wanted:
        run(on(recipe), base=tmp_path, runs=tmp_path / "one", console=silent())
    assert [process.wait(300) for process in processes] == [0] * size
    for recipe in wanted:
        for stage in STAGES.get(recipe["name"], ["pretrain"]):
            alone, many = (weights(tmp_path, runs, recipe["name"], stage) for runs in ("one", "many"))
            for name, value in alone.items():
                torch.testing.assert_close(
                    many[name],
                    value,
                    rtol=1e-5,
                    atol=1e-5,
                    msg=f"{recipe['name']}: {name}",
                )
            summaries = [
                read_json(tmp_path / runs / recipe["name"] / stage / "summary.json", "a stage")
                for runs in ("one", "many")
            ]
            assert summaries[0]["training"]["steps"] == summaries[1]["training"]["steps"]
            epochs = [
                [entry["valid"] for entry in read_metrics(place / stage / "metrics.jsonl") if entry["kind"] == "epoch"]
                for place in (tmp_path / "one" / recipe["name"], tmp_path / "many" / recipe["name"])
            ]
            assert epochs[0] and len(epochs[0]) == len(epochs[1])
            for one, several in zip(*epochs):
                assert several == pytest.approx(one, rel=1e-4, abs=1e-4)
            assert summaries[0]["evaluation"]["metrics"].keys() == summaries[1]["evaluation"]["metrics"].keys()


@pytest.mark.parametrize(
    ("size", "hardware", "gpt"),
    [
        (2, {"tensor": 2}, {}),
        pytest.param(4, {"tensor": 2, "gradient_checkpointing": True}, {}, marks=pytest.mark.slow),
        pytest.param(
            2, {"tensor": 2}, {"layers": 2, "heads": 4, "kv_heads": 2, "context": 160}, marks=pytest.mark.slow
        ),
    ],
)
def test_processes_that_divide_the_layers_train_what_one_does(
    size: int, hardware: dict[str, Any], gpt: dict[str, Any], tmp_path: Path
) -> None:
    """Whatever is divided by heads and hidden features, and by rows besides where there are more processes than that."""
    recipe = {"name": "writer", "train": {"epochs": 6, "batch_size": 2, "clip_norm": 0.5}, **CASES["writer"](tmp_path)}
    recipe["model"] = {**recipe["model"], "backbone": {"gpt": {"layers": 1, "width": 32, "heads": 2, **gpt}}}
    if "context" in gpt:
        recipe["model"]["max_length"] = gpt["context"]  # longer than what plain products compute
    (tmp_path / "recipes.json").write_text(json.dumps([on(recipe, **hardware)]))
    (tmp_path / "followed.py").write_text(FOLLOWED)
    processes = started(size, str(tmp_path / "followed.py"), str(tmp_path), "many", "parts")
    run(on(recipe), base=tmp_path, runs=tmp_path / "one", console=silent())
    assert [process.wait(300) for process in processes] == [0] * size
    alone, many = (weights(tmp_path, runs, "writer", "pretrain") for runs in ("one", "many"))
    for name, value in alone.items():
        torch.testing.assert_close(many[name], value, rtol=1e-5, atol=1e-5, msg=name)


@pytest.mark.slow
@pytest.mark.parametrize("then", [(1, {}), (2, {"tensor": 2}), (2, {"strategy": "fsdp"})])
def test_divided_layers_are_gone_on_with_otherwise(then: tuple[int, dict[str, Any]], tmp_path: Path) -> None:
    recipe = {
        "name": "writer",
        "train": {"epochs": 40, "batch_size": 2, "checkpoint_steps": 3},
        **CASES["writer"](tmp_path),
    }
    run({**on(recipe), "name": "alone"}, base=tmp_path, runs=tmp_path / "alone", console=silent())
    (tmp_path / "followed.py").write_text(FOLLOWED)
    (tmp_path / "recipes.json").write_text(json.dumps([on(recipe, tensor=2)]))
    processes = started(4, str(tmp_path / "followed.py"), str(tmp_path), "runs")
    checkpoints = tmp_path / "runs" / "writer" / "pretrain" / "checkpoints"
    until = time.monotonic() + 120
    while not list(checkpoints.glob("step-*")) and time.monotonic() < until:
        time.sleep(0.02)
    for process in processes:
        process.kill()
        process.wait()
    assert not (tmp_path / "runs" / "writer" / "pretrain" / "summary.json").exists()
    size, hardware = then
    (tmp_path / "recipes.json").write_text(json.dumps([on(recipe, **hardware)]))
    processes = started(size, str(tmp_path / "followed.py"), str(tmp_path), "runs")
    assert [process.wait(200) for process in processes] == [0] * size
    expected = weights(tmp_path, "alone", "alone", "pretrain")
    for name, value in weights(tmp_path, "runs", "writer", "pretrain").items():
        torch.testing.assert_close(value, expected[name], rtol=1e-5, atol=1e-5, msg=name)
    assert "going on after step" in (tmp_path / "runs" / "writer" / "log.txt").read_text()


def test_each_example_comes_once_whatever_the_number_of_processes() -> None:
    examples = TensorExamples(torch.zeros(103, 1), None, torch.arange(1, 104))
    whole = Batches(examples=examples, batch_size=10, accumulate=2, seed=3)
    for parts in (1, 2, 3, 7, 16):
        own = [
            Batches(examples=examples, batch_size=10, accumulate=2, seed=3, part=part, parts=parts)
            for part in range(parts)
        ]
        assert {batches.steps_per_epoch for batches in own} == {whole.steps_per_epoch}
        for steps in zip(whole.steps(1), *(batches.steps(1) for batches in own), strict=True):
            every, *shares = ([int(index) for batch in step for index in batch.ids] for step in steps)
            assert sorted(index for share in shares for index in share) == sorted(every)


LONG: dict[str, Any] = {
    "name": "long",
    "task": "image-classification",
    "data": {"source": "digits", "limit": 600},
    "model": {"layers": ["flatten", {"dense": 16, "activation": "relu"}, {"dense": 10}]},
    "train": {"epochs": 30, "batch_size": 24, "checkpoint_steps": 5},
}


def command(place: Path, devices: int) -> list[str]:
    (place / "long.yaml").write_text(json.dumps(LONG))
    return [
        sys.executable,
        "-m",
        "tunewright",
        "run",
        str(place / "long.yaml"),
        f"hardware.devices={devices}",
        f"--runs={place / 'runs'}",
    ]


def children(process: subprocess.Popen[Any]) -> list[int]:
    found = Path(f"/proc/{process.pid}/task/{process.pid}/children")
    return [int(word) for word in found.read_text().split()] if found.exists() else []


@pytest.mark.slow
def test_divided_weights_move_as_whole_ones_do_by_every_optimizer(tmp_path: Path) -> None:
    """With penalties, momentum, decay, and layers that thaw on the way."""
    texts(tmp_path / "texts.jsonl")
    bert = str(tiny_bert(tmp_path / "bert", **QUIET))
    optimizers = [{"sgd": {"momentum": 0.9}}, "adagrad", {"rmsprop": {"momentum": 0.5}}, "adamw"]
    wanted = [
        {
            "name": f"by{number}",
            "task": "text-classification",
            "data": {"source": "texts.jsonl", "input": "text", "target": "label"},
            "model": {"backbone": bert},
            "tune": {"freeze": "backbone", "unfreeze": [{"epoch": 2, "layers": 1}, {"epoch": 3, "layers": "all"}]},
            "train": {
                "epochs": 3,
                "batch_size": 13,
                "optimizer": optimizer,
                "regularization": {"l1": 1e-4, "l2": 1e-3, "weight_decay": 0.01},
            },
            "stages": ["finetune"],
        }
        for number, optimizer in enumerate(optimizers)
    ]
    writer: dict[str, Any] = {"name": "writer", "train": {"epochs": 3, "batch_size": 2}, **CASES["writer"](tmp_path)}
    writer["stages"] = ["pretrain", {"finetune": {"tune": {"adapter": {"lora": {"dropout": 0.0}}}}}]
    shared: list[dict[str, Any]] = [on(recipe, strategy="fsdp") for recipe in wanted]
    shared.append(on(writer, strategy="fsdp", precision="bfloat16", gradient_checkpointing=True))
    (tmp_path / "recipes.json").write_text(json.dumps(shared))
    (tmp_path / "followed.py").write_text(FOLLOWED)
    processes = started(2, str(tmp_path / "followed.py"), str(tmp_path), "many")
    run(on(writer, precision="bfloat16"), base=tmp_path, runs=tmp_path / "one", console=silent())
    for recipe in wanted:
        run(on(recipe), base=tmp_path, runs=tmp_path / "one", console=silent())
    assert [process.wait(300) for process in processes] == [0, 0]
    for recipe in wanted:
        alone, many = (weights(tmp_path, runs, str(recipe["name"]), "finetune") for runs in ("one", "many"))
        for name, value in alone.items():
            torch.testing.assert_close(many[name], value, rtol=1e-5, atol=1e-5, msg=f"{recipe['train']}: {name}")
    for stage in ("pretrain", "finetune"):
        alone, many = (weights(tmp_path, runs, "writer", stage) for runs in ("one", "many"))
        for name, value in alone.items():  # bfloat16 has three digits, and a step of Adam on noise is a whole one
            assert float((many[name] - value).abs().mean()) < 2e-3, name


@pytest.mark.slow
@pytest.mark.parametrize(
    "numbers",
    [["ddp", 4, "ddp", 2], ["fsdp", 4, "fsdp", 2], ["fsdp", 4, "ddp", 2], ["ddp", 2, "fsdp", 3], ["fsdp", 2, "ddp", 1]],
)
def test_a_lost_process_ends_the_run_and_another_number_goes_on(numbers: list[Any], tmp_path: Path) -> None:
    """Begun by some, one killed; gone on by others, whole or divided; the weights are those of one that was never stopped."""
    first, size, then, fewer = numbers
    alone = run({**on(LONG), "name": "alone"}, runs=tmp_path / "alone", console=silent())
    (tmp_path / "followed.py").write_text(FOLLOWED)
    (tmp_path / "recipes.json").write_text(json.dumps([on(LONG, strategy=first)]))
    processes = started(size, str(tmp_path / "followed.py"), str(tmp_path), "runs", "beside" if size == 4 else "")
    checkpoints = tmp_path / "runs" / "long" / "pretrain" / "checkpoints"
    until = time.monotonic() + 120
    while not list(checkpoints.glob("step-*")) and time.monotonic() < until:
        time.sleep(0.02)
    processes[-1].kill()
    time.sleep(1)
    for process in processes:
        process.kill()
        process.wait()
    assert not (tmp_path / "runs" / "long" / "pretrain" / "summary.json").exists()
    assert any((folder / "model").is_dir() for folder in checkpoints.glob("step-*")) == (first == "fsdp")
    (tmp_path / "recipes.json").write_text(json.dumps([on(LONG, strategy=then)]))
    processes = started(fewer, str(tmp_path / "followed.py"), str(tmp_path), "runs")
    assert [process.wait(200) for process in processes] == [0] * fewer
    expected = weights(tmp_path, "alone", "alone", "pretrain")
    for name, value in weights(tmp_path, "runs", "long", "pretrain").items():
        torch.testing.assert_close(value, expected[name], rtol=1e-5, atol=1e-5)
    log = (tmp_path / "runs" / "long" / "log.txt").read_text()
    assert "going on after step" in log and alone.folder.exists()


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="children are found in /proc")
def test_run_starts_them_and_ends_when_one_is_lost(tmp_path: Path) -> None:
    process = subprocess.Popen(command(tmp_path, 2), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    checkpoints = tmp_path / "runs" / "long" / "pretrain" / "checkpoints"
    until = time.monotonic() + 120
    while not list(checkpoints.glob("step-*")) and time.monotonic() < until:
        time.sleep(0.02)
    os.kill(children(process)[1], signal.SIGKILL)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 1, said
    again = subprocess.run(command(tmp_path, 2), capture_output=True, text=True, timeout=200)
    assert again.returncode == 0 and "going on after step" in again.stdout, again.stderr


def test_what_several_processes_cannot_do(tmp_path: Path) -> None:
    (tmp_path / "r.yaml").write_text(
        "task: image-classification\ndata: {source: digits}\nhardware: {nodes: 2, devices: 4}\n"
    )
    with pytest.raises(RecipeError, match="started by torchrun") as caught:
        start_here(tmp_path / "r.yaml", [], [])
    assert "--nnodes 2 --nproc-per-node 4" in str(caught.value)
    (tmp_path / "one.yaml").write_text("task: image-classification\ndata: {source: digits}\n")
    assert start_here(tmp_path / "one.yaml", [], []) is None
    (tmp_path / "wrong.yaml").write_text(
        "task: image-classification\ndata: {source: nowhere.csv}\nhardware: {devices: 2}\n"
    )
    found = subprocess.run(
        [sys.executable, "-m", "tunewright", "run", "wrong.yaml"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=100,
    )
    assert found.returncode == 2 and found.stderr.startswith("error: ") and "Traceback" not in found.stderr
