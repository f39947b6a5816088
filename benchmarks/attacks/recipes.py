"""Hostile recipes: sizes, numbers, names, patterns and YAML that a stranger could write."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from typing import Any

from attacks.attempt import Attempt, Scene

BASE: dict[str, Any] = {
    "task": "image-classification",
    "data": {"source": "digits"},
    "model": {"layers": ["flatten", {"dense": 8, "activation": "relu"}, {"dense": "auto"}]},
    "train": {"epochs": 1},
    "eval": {"resamples": 100},
    "hardware": {"threads": 1},
}
HUGE = 10**12
NUMBERS: list[Any] = [-1, 0, HUGE, 10**400, 1.5, float("inf"), float("nan"), "1e999", True, None, [], {}, "x" * 100_000]
FIELDS = ["train.epochs", "train.batch_size", "train.lr", "train.accumulate", "train.clip_norm", "data.limit", "seed"]
OTHERS = [
    ("hardware.threads", 1_000_000),
    ("hardware.devices", HUGE),
    ("hardware.nodes", HUGE),
    ("hardware.tensor", HUGE),
    ("eval.seeds", HUGE),
    ("eval.resamples", HUGE),
    ("eval.explain", HUGE),
    ("train.warmup", 1e300),
    ("train.label_smoothing", 1.0),
    ("train.regularization.l2", float("inf")),
    ("train.checkpoint_steps", 0),
    ("train.schedule", {"step": {"every": 0}}),
    ("train.optimizer", {"sgd": {"momentum": -5}}),
    ("train.optimizer", "__import__('os').system('touch trace')"),
    ("train.augment", [{"crop": HUGE}]),
    ("data.resize", [1_000_000, 1_000_000]),
    ("data.split.valid", 0.9999999),
    ("data.source", "../../../../etc/passwd"),
    ("data.source", "/proc/self/mem"),
    ("data.source", "/proc/self/environ"),
    ("data.source", "/dev/zero"),
    ("data.source", "/dev/random"),
    ("data.source", "/dev/stdin"),
    ("data.source", "hub:../../x"),
    ("data.source", "http://127.0.0.1:9/x.csv"),
    ("data.source", "\0"),
    ("data.source", "a" * 5000),
    ("data.input", "\ud800"),
    ("model.weights", "/dev/zero"),
    ("model.weights", "../../../../root"),
    ("model.backbone", "/dev"),
    ("model.backbone", "/"),
    ("model.backbone", {"resnet20": {"width": HUGE}}),
    ("model.backbone", {"mlp": {"hidden": [HUGE]}}),
    ("model.backbone", {"mlp": {"hidden": [64] * 5000}}),
    ("model.layers", [{"dense": HUGE}]),
    ("model.layers", ["flatten", *[{"dense": 8}] * 5000, {"dense": "auto"}]),
    ("model.layers", [{"conv2d": HUGE, "kernel": HUGE}]),
    ("model.layers", [{"__class__": "os.system"}]),
    ("model.layers", [[[[[]]]]]),
    ("model.head", [{"dense": "auto"}] * 20_000),
    ("tune.freeze", "re:(a+)+$"),
    ("tune.freeze", "re:(([a-z0-9._]+)+)+Z"),
    ("tune.freeze", "re:" + "(" * 5000),
    ("tune.freeze", "re:" + "a?" * 3000 + "a" * 3000),
    ("tune.freeze", ["x"] * 100_000),
    ("tune.adapter", {"lora": {"r": HUGE}}),
    ("tune.adapter", {"lora": {"target": "(a+)+$"}}),
    ("tune.unfreeze", [{"epoch": 1, "layers": HUGE}] * 10_000),
    ("stages", ["pretrain"] * 3000),
    ("stages", [{"finetune": {"stages": ["pretrain"]}}]),
    ("stages", []),
    ("eval.metrics", ["accuracy"] * 100_000),
    ("eval.slices", ["x" * 1000] * 1000),
    ("eval.target", {"accuracy": float("nan")}),
    ("search", {"train.lr": {"log": [0, float("inf")]}}),
    ("track", ["tensorboard"] * 10_000),
    ("name", "../../escaped"),
    ("name", "/tmp/escaped"),
    ("name", "x" * 10_000),
    ("name", "a\nb"),
    ("task", "os.system"),
    ("task", "../image-classification"),
    ("privacy", {"epsilon": 1e-300}),
    ("privacy", {"epsilon": 3, "clip_norm": 1e-300}),
    ("export", ["../../x"]),
]
TEXTS: dict[str, Callable[[Scene], str | bytes]] = {
    "alias bomb": lambda scene: (
        "a0: &a0 [x, x, x, x, x, x, x, x, x]\n"
        + "".join(f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]\n" for n in range(1, 12))
        + "task: *a11\n"
    ),
    "merge bomb": lambda scene: (
        "a0: &a0 {k: v}\n" + "".join(f"a{n}: &a{n} {{<<: [{', '.join([f'*a{n - 1}'] * 9)}]}}\n" for n in range(1, 9))
    ),
    "alias of itself": lambda scene: "task: &t [*t]\n",
    "python tag": lambda scene: f"task: !!python/object/apply:os.system ['touch {scene.trace}']\n",
    "python name": lambda scene: "task: !!python/name:os.system\n",
    "own tag": lambda scene: "task: !tunewright {}\n",
    "binary tag": lambda scene: "task: !!binary AAAA\n",
    "depth of lists": lambda scene: "task: " + "[" * 20_000 + "]" * 20_000 + "\n",
    "depth of maps": lambda scene: "".join(" " * n + f"k{n}:\n" for n in range(3000)),
    "a list of 1 MiB": lambda scene: "task: [" + "1," * 500_000 + "1]\n",
    "a scalar of 10 MiB": lambda scene: "task: " + "x" * 10_000_000 + "\n",
    "a key of 2 MiB": lambda scene: "x" * 2_000_000 + ": 1\n",
    "keys": lambda scene: "".join(f"k{n}: 1\n" for n in range(60_000)),
    "an integer of 100,000 digits": lambda scene: "seed: " + "9" * 100_000 + "\n",
    "a sexagesimal number": lambda scene: "seed: " + "1:" * 10_000 + "1\n",
    "dates": lambda scene: "seed: 9999999999-99-99\n",
    "a merge key": lambda scene: "<<: {task: x}\n",
    "two documents": lambda scene: "task: a\n---\ntask: b\n",
    "tabs": lambda scene: "task:\t\tx\n\t- y\n",
    "null bytes": lambda scene: b"task: a\x00b\n",
    "not utf-8": lambda scene: b"task: \xff\xfe\xfd\n",
    "utf-16": lambda scene: "task: x\n".encode("utf-16"),
    "binary": lambda scene: bytes(range(256)) * 100,
    "empty": lambda scene: "",
    "a number": lambda scene: "3\n",
    "a list": lambda scene: "- 1\n",
    "duplicate keys": lambda scene: "task: a\ntask: b\n",
    "control characters": lambda scene: "task: \x1b[2J\x07\n",
    "anchors": lambda scene: "".join(f"k{n}: &a{n} 1\n" for n in range(50_000)),
    "an open quote": lambda scene: 'task: "' + "x\n" * 100_000,
    "a block scalar": lambda scene: "task: |\n" + " x\n" * 500_000,
    "flow of maps": lambda scene: "task: " + "{a: " * 5000 + "1" + "}" * 5000 + "\n",
    "comments": lambda scene: "#" + "x" * 5_000_000 + "\n",
    "escape": lambda scene: 'task: "\\ud800"\n',
}


def attempts() -> Iterator[Attempt]:
    """Every hostile recipe."""
    for field in FIELDS:
        for number in NUMBERS:
            yield Attempt("recipe", f"{field} = {str(number)[:30]}", _recipe(field, number))
    for field, value in OTHERS:
        yield Attempt("recipe", f"{field} = {str(value)[:40]}", _recipe(field, value))
    for name, text in TEXTS.items():
        yield Attempt("recipe", name, _text(text))
    for name, make in SPECIAL.items():
        yield Attempt("recipe", name, make)


def _recipe(field: str, value: Any) -> Callable[[Scene], list[str]]:
    def prepare(scene: Scene) -> list[str]:
        recipe = json.loads(json.dumps(BASE))
        place = recipe
        *path, last = field.split(".")
        for part in path:
            place = place.setdefault(part, {})
        place[last] = value
        (scene.folder / "recipe.yaml").write_text(json.dumps(recipe))
        # What only costs as long as it is asked for (epochs) is planned, the rest is run.
        verb = "plan" if field in ("train.epochs", "eval.seeds", "eval.resamples") else "run"
        return [verb, "recipe.yaml"]

    return prepare


def _text(text: Callable[[Scene], str | bytes]) -> Callable[[Scene], list[str]]:
    def prepare(scene: Scene) -> list[str]:
        content = text(scene)
        (scene.folder / "recipe.yaml").write_bytes(content if isinstance(content, bytes) else content.encode())
        return ["run", "recipe.yaml"]

    return prepare


def _fifo(scene: Scene) -> list[str]:
    os.mkfifo(scene.folder / "recipe.yaml")
    return ["run", "recipe.yaml"]


def _folder(scene: Scene) -> list[str]:
    (scene.folder / "recipe.yaml").mkdir()
    return ["run", "recipe.yaml"]


def _linked(scene: Scene) -> list[str]:
    (scene.folder / "recipe.yaml").symlink_to(scene.secret)
    return ["run", "recipe.yaml"]


def _loop(scene: Scene) -> list[str]:
    (scene.folder / "recipe.yaml").symlink_to("recipe.yaml")
    return ["run", "recipe.yaml"]


def _override(word: str) -> Callable[[Scene], list[str]]:
    def prepare(scene: Scene) -> list[str]:
        (scene.folder / "recipe.yaml").write_text(json.dumps(BASE))
        return ["run", "recipe.yaml", word]

    return prepare


SPECIAL: dict[str, Callable[[Scene], list[str]]] = {
    "a fifo": _fifo,
    "a folder": _folder,
    "a link to itself": _loop,
    "an endless device": lambda scene: ["run", "/dev/zero"],
    "an override of depth 2,000": _override(".".join(["a"] * 2000) + "=1"),
    "an override of 1 MiB": _override("name=" + "x" * 100_000),
    "an override with a tag": _override("task=!!python/name:os.system"),
    "an override with a bomb": _override("task=" + "[" * 5000 + "]" * 5000),
    "an override without a value": _override("train.lr"),
    "an override of dunder": _override("__class__.__init__=1"),
}
