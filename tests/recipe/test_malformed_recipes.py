"""Recipes with a mistake: each ends in a RecipeError that names file, place and what to do, and in exit 2."""

from __future__ import annotations

from pathlib import Path

import pytest

from tunewright.errors import RecipeError
from tunewright.recipe.loading import load_recipe
from tunewright.tasks.registry import task_defaults

HEAD = "task: image-classification\ndata: {source: mnist}\n"

TEXTS = [
    "",
    "# only a comment\n",
    "just text",
    "[1, 2]",
    "3",
    "a: [1,\n",
    "a: {b: 1\n",
    "\ta: 1",
    "a: 'open\n",
    'a: "open\n',
    "a: b: c",
    "a: 1\n  b: 2",
    "- a\nb: 1",
    "a: !!python/object:os.system x",
    "a: !!python/object/apply:os.system ['echo']",
    "a: !custom {b: 1}",
    "a: !!binary aGk=",
    "a: !!set {x}",
    "a: &x [1]\nb: *y",
    "task: a\ntask: b",
    "data: {source: a, source: b}",
    "? [1, 2]\n: 3",
    "a: {<<: {b: 1}}",
    "a: \x00",
    "a: \x07",
    "a: &a [x,x,x,x,x,x,x,x,x]\nb: &b [*a,*a,*a,*a,*a,*a,*a,*a,*a]\nc: &c [*b,*b,*b,*b,*b,*b,*b,*b,*b]\nd: &d [*c,*c,*c,*c,*c,*c,*c,*c]\ne: [*d,*d,*d,*d,*d,*d,*d]",
    "a: " + "[" * 60 + "]" * 60,
    "a: " + "[" * 5000,
    "%YAML 9.9\n---\na: 1\n--- \nb: 2",
    "a: 1\n---\nb: 2",
    "data: {source: mnist}\n",
    "task: image-classification\n",
    "task:\ndata: {source: mnist}",
    "task: 3\ndata: {source: mnist}",
    "task: [a]\ndata: {source: mnist}",
    "task: image-clasification\ndata: {source: mnist}",
    "task: vision\ndata: {source: mnist}",
    "task: image-classification\ndata: mnist",
    "task: image-classification\ndata: []",
    "task: image-classification\ndata: {}",
    "task: image-classification\ndata: {sorce: mnist}",
    "task: image-classification\ndata: {source: 3}",
    "task: image-classification\ndata: {source: [a]}",
    "task: image-classification\ndata: {source: a, format: cvs}",
    "task: image-classification\ndata: {source: a, labelled: maybe}",
    "task: image-classification\ndata: {source: a, labelled: 7}",
    "task: image-classification\ndata: {source: a, limit: 0}",
    "task: image-classification\ndata: {source: a, limit: 1.5}",
    "task: image-classification\ndata: {source: a, limit: many}",
    "task: image-classification\ndata: {source: a, resize: 28}",
    "task: image-classification\ndata: {source: a, resize: [28]}",
    "task: image-classification\ndata: {source: a, resize: [28, 28, 3]}",
    "task: image-classification\ndata: {source: a, resize: [0, 28]}",
    "task: image-classification\ndata: {source: a, input: {x: 1}}",
    "task: image-classification\ndata: {source: a, input: [1, 2]}",
    "task: image-classification\ndata: {source: a, target: [x]}",
    "task: image-classification\ndata: {source: a, split: 0.1}",
    "task: image-classification\ndata: {source: a, split: {valid: 1.0}}",
    "task: image-classification\ndata: {source: a, split: {valid: -0.1}}",
    "task: image-classification\ndata: {source: a, split: {test: ten}}",
    "task: image-classification\ndata: {source: a, split: {by: luck}}",
    "task: image-classification\ndata: {source: a, split: {train: 0.8}}",
]
BLOCKS = [
    "name: ../evil",
    "name: ''",
    "name: a b",
    "name: " + "x" * 80,
    "name: [a]",
    "seed: -1",
    "seed: 1.5",
    "seed: one",
    "seed: 99999999999",
    "lr: 0.1",
    "epochs: 3",
    "optimizer: adam",
    "modell: {}",
    "model: resnet20",
    "model: {layers: flatten}",
    "model: {layers: 3}",
    "model: {layers: {dense: 3}}",
    "model: {layers: [3]}",
    "model: {layers: [[dense]]}",
    "model: {head: {dense: 3}}",
    "model: {backbone: 3}",
    "model: {backbone: {mlp: 3}}",
    "model: {backbone: [mlp]}",
    "model: {weights: 3}",
    "model: {layer: []}",
    "tune: backbone",
    "tune: {freeze: {a: 1}}",
    "tune: {freeze: [1, 2]}",
    "tune: {unfreeze: 3}",
    "tune: {unfreeze: [3]}",
    "tune: {unfreeze: [{epoch: 1}]}",
    "tune: {unfreeze: [{layers: 1}]}",
    "tune: {unfreeze: [{epoch: 0, layers: 1}]}",
    "tune: {unfreeze: [{epoch: 1, layers: -1}]}",
    "tune: {layer_lr_decay: 0}",
    "tune: {layer_lr_decay: 1.5}",
    "tune: {layer_lr_decay: slow}",
    "tune: {head_lr_multiplier: 0}",
    "tune: {head_lr_multiplier: -1}",
    "tune: {lora: {r: 8}}",
    "train: 5",
    "train: [epochs]",
    "train: {epochs: 0}",
    "train: {epochs: -3}",
    "train: {epochs: 2.5}",
    "train: {epochs: many}",
    "train: {epochs: true}",
    "train: {epochs: [1]}",
    "train: {epohcs: 3}",
    "train: {batch_size: 0}",
    "train: {batch_size: 3.5}",
    "train: {batch-size: 3}",
    "train: {lr: 0}",
    "train: {lr: -1e-3}",
    "train: {lr: fast}",
    "train: {lr: 1e-3x}",
    "train: {lr: [1]}",
    "train: {optimizer: 3}",
    "train: {optimizer: {sgd: 0.9}}",
    "train: {optimizer: [adam]}",
    "train: {schedule: 3}",
    "train: {warmup: -1}",
    "train: {warmup: long}",
    "train: {regularization: 0.1}",
    "train: {regularization: {l1: -1}}",
    "train: {regularization: {l2: strong}}",
    "train: {regularization: {l3: 1}}",
    "train: {regularization: {weight_decay: -0.1}}",
    "train: {class_weights: fair}",
    "train: {class_weights: {a: heavy}}",
    "train: {label_smoothing: 1.0}",
    "train: {label_smoothing: -0.1}",
    "train: {clip_norm: 0}",
    "train: {clip_norm: big}",
    "train: {accumulate: 0}",
    "train: {accumulate: 1.5}",
    "train: {early_stopping: 3}",
    "train: {early_stopping: {patience: 0}}",
    "train: {early_stopping: {patience: 2, delta: 1}}",
    "train: {select: [accuracy]}",
    "train: {checkpoint_steps: 0}",
    "train: {checkpoint_steps: often}",
    "eval: accuracy",
    "eval: {metrics: {a: 1}}",
    "eval: {metrics: [1]}",
    "eval: {slices: {a: 1}}",
    "eval: {seeds: 0}",
    "eval: {seeds: three}",
    "eval: {resamples: 10}",
    "eval: {resamples: 1000000000}",
    "eval: {target: 0.9}",
    "eval: {target: {accuracy: high}}",
    "eval: {controls: scratch}",
    "eval: {controls: [nothing]}",
    "eval: {control: []}",
    "hardware: gpu",
    "hardware: {device: tpu}",
    "hardware: {threads: 0}",
    "hardware: {cores: 2}",
    "stages: pretrain",
    "stages: {pretrain: {}}",
    "stages: [fintune]",
    "stages: [3]",
    "stages: [{pretrain: {}, finetune: {}}]",
    "stages: [{finetune: 3}]",
    "stages: [{finetune: [a]}]",
    "stages: [{evaluate: {}}]",
    "stages: [{finetune: {stages: [pretrain]}}]",
    "stages: [{finetune: {task: other}}]",
    "stages: [{finetune: {data: {sorce: x}}}]",
    "stages: [{finetune: {train: {epochs: 0}}}]",
    "stages: [{finetune: {trian: {}}}]",
    "stages: [{}]",
]
OVERRIDES = [
    "train.lr",
    "=3",
    "train.=3",
    ".lr=3",
    "train..lr=3",
    "train.lr=fast",
    "train.lr=[1",
    "train.epochs=0",
    "trian.lr=3",
    "train.l=3",
    "data.split=3",
    "seed=x",
    "stages.7.finetune.train.epochs=3",
    "stages.x=3",
    "task=nothing",
    "data.source=!!python/name:os.system",
]


def expect(path: Path, *overrides: str) -> RecipeError:
    with pytest.raises(RecipeError) as caught:
        load_recipe(path, overrides, defaults=task_defaults)
    error = caught.value
    assert error.exit_code == 2
    assert "expected:" in error.message or "fix:" in error.message
    assert "pydantic" not in error.message and "Traceback" not in error.message and "https" not in error.message
    return error


@pytest.mark.parametrize("text", [*TEXTS, *(HEAD + block for block in BLOCKS)], ids=lambda text: repr(text[-50:]))
def test_malformed_recipe(tmp_path: Path, text: str) -> None:
    path = tmp_path / "recipe.yaml"
    path.write_text(text, encoding="utf-8")
    message = expect(path).message
    assert str(path) in message
    assert "line " in message or "mistakes" in message


@pytest.mark.parametrize("override", OVERRIDES)
def test_malformed_override(tmp_path: Path, override: str) -> None:
    path = tmp_path / "recipe.yaml"
    path.write_text(HEAD + "stages: [pretrain, {finetune: {}}]", encoding="utf-8")
    expect(path, override)


@pytest.mark.parametrize(
    "raw", [b"\xff\xfea\x00:\x00", b"a: \xe9\n", b"task: image-classification\nname: caf\xe9\n", b"a: 1\n" * 300_000]
)
def test_malformed_bytes(tmp_path: Path, raw: bytes) -> None:
    path = tmp_path / "recipe.yaml"
    path.write_bytes(raw)
    assert str(path) in expect(path).message


def test_missing_file_and_folder(tmp_path: Path) -> None:
    assert "no such recipe" in expect(tmp_path / "missing.yaml").message
    assert "folder" in expect(tmp_path).message
