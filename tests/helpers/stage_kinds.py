"""Write a small recipe for each kind of stage, to be killed, stopped or run on a full disk.

Precision and threads are fixed, so that two runs give the same bits on any machine.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import soundfile

from language_recipes import chat_recipe, language_recipe, preference_recipe
from tiny import texts, tiny_bert
from tones import speak
from tunewright.data.audio.decode import RATE

SMALL = {"eval": {"resamples": 100}, "hardware": {"threads": 1, "precision": "float32"}}


PICTURES: dict[str, Any] = {
    "task": "image-classification",
    "data": {"source": "digits", "limit": 300, "split": {"valid": 0.2, "test": 0.2}},
    "model": {"layers": [{"conv2d": 4, "kernel": 3}, "batch_norm", "relu", "flatten", {"dropout": 0.2}, {"dense": 10}]},
    "train": {"epochs": 3, "batch_size": 32, "checkpoint_steps": 2},
    **SMALL,
}


def picture(place: Path) -> dict[str, Any]:
    return PICTURES


def with_seeds(place: Path) -> dict[str, Any]:
    return {**PICTURES, "train": {**PICTURES["train"], "epochs": 1}, "eval": {"resamples": 100, "seeds": 2}}


def private(place: Path) -> dict[str, Any]:
    train = {"epochs": 3, "batch_size": 60, "optimizer": "sgd", "lr": 2.0, "checkpoint_steps": 2}
    return {**PICTURES, "model": {"layers": ["flatten", {"dense": 10}]}, "train": train, "privacy": {"epsilon": 8}}


def lora(place: Path) -> dict[str, Any]:
    tiny_bert(place / "tiny", layers=2)
    texts(place / "reviews.jsonl", 120)
    return {
        "task": "text-classification",
        "data": {"source": "reviews.jsonl"},
        "model": {"backbone": "tiny"},
        "tune": {"adapter": "lora"},
        "train": {"epochs": 2, "batch_size": 8, "lr": 1e-2, "checkpoint_steps": 3},
        **SMALL,
    }


def frozen(place: Path) -> dict[str, Any]:
    return {**lora(place), "tune": {"freeze": "backbone"}}


def few(place: Path) -> dict[str, Any]:
    return {**{key: value for key, value in lora(place).items() if key != "train"}, "tune": {"method": "features"}}


def contrastive(place: Path) -> dict[str, Any]:
    train = {"epochs": 1, "batch_size": 32, "checkpoint_steps": 5}
    return {**lora(place), "tune": {"method": "contrastive"}, "train": train}


def controlled(place: Path) -> dict[str, Any]:
    return {**lora(place), "eval": {"resamples": 100, "controls": ["from_scratch"]}}


def two_stages(place: Path) -> dict[str, Any]:
    finetune = {"finetune": {"tune": {"freeze": "backbone"}, "train": {"epochs": 2}}}
    return {**PICTURES, "stages": ["pretrain", finetune]}


def language(place: Path) -> dict[str, Any]:
    return {**language_recipe(place), **SMALL}


def chat(place: Path) -> dict[str, Any]:
    recipe = chat_recipe(place)
    return {**recipe, "train": {**recipe["train"], "epochs": 1, "checkpoint_steps": 20}, **SMALL}


def preference(place: Path) -> dict[str, Any]:
    recipe = preference_recipe(place)
    return {**recipe, "train": {**recipe["train"], "epochs": 1, "checkpoint_steps": 4}, **SMALL}


def speech(place: Path) -> dict[str, Any]:
    draw = np.random.default_rng(0)
    lines = ["audio,text"]
    for number in range(40):
        text = "".join(draw.choice(list("abc"), 3))
        soundfile.write(place / f"{number}.wav", speak(text, number), RATE)
        lines.append(f"{number}.wav,{text}")
    (place / "tones.csv").write_text("\n".join(lines) + "\n")
    return {
        "task": "speech-recognition",
        "data": {"source": "tones.csv", "split": {"valid": 0.2, "test": 0.2}},
        "model": {
            "backbone": {"deepspeech": {"channels": 4, "hidden": 16, "layers": 1}},
            "decoding": {"beam": {"width": 4}},
        },
        "train": {"epochs": 3, "batch_seconds": 6, "lr": 8e-3},
        **SMALL,
    }


def recommendation(place: Path) -> dict[str, Any]:
    draw = np.random.default_rng(2)
    kinds = {user: [item for item in range(40) if item % 4 == user % 4] for user in range(40)}
    rows = [f"{user},{item}" for user, items in kinds.items() for item in draw.permutation(items)[:8]]
    (place / "liked.csv").write_text("user,item\n" + "\n".join(rows) + "\n")
    return {
        "task": "item-recommendation",
        "data": {"source": "liked.csv", "split": {"by": "within", "column": "user", "valid": 0.1, "test": 0.2}},
        "model": {"backbone": {"factors": {"width": 8}}},
        "train": {"epochs": 3, "batch_size": 64, "lr": 3e-2},
        **SMALL,
    }


CHEAP: list[Callable[[Path], dict[str, Any]]] = [picture, two_stages]


KINDS = [
    *CHEAP, with_seeds, private, lora, frozen, few, contrastive, controlled, language, chat, preference, speech,
    recommendation,
]  # fmt: skip
