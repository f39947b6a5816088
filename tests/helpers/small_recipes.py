"""Write one small recipe for each kind of input and network, with its data."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import soundfile

from tiny import texts, tiny_bert
from tunewright.console import silent
from tunewright.run_recipe import run

SHORT = {"epochs": 1, "batch_size": 16}
# Where results are compared: otherwise a measurement decides between float32 and bfloat16.
FLOAT32: dict[str, Any] = {"hardware": {"precision": "float32"}}


def _digits(place: Path) -> dict[str, Any]:
    layers = [{"conv2d": 4}, "batch_norm", "relu", "max_pool", "flatten", {"dense": 10}]
    return {"task": "image-classification", "data": {"source": "digits", "limit": 300}, "model": {"layers": layers}}


def _recurrent(place: Path) -> dict[str, Any]:
    layers = [{"reshape": [8, 8]}, {"gru": 6, "bidirectional": True, "sequences": True}, {"lstm": 5}, {"dense": 10}]
    return {**_digits(place), "model": {"layers": ["flatten", *layers]}}


def _rows(place: Path) -> dict[str, Any]:
    lines = ["size,colour,price"] + [f"{n},{'red' if n % 3 else 'blue'},{n * 1.5 + n % 3}" for n in range(120)]
    (place / "rows.csv").write_text("\n".join(lines))
    return {"task": "tabular-regression", "data": {"source": "rows.csv", "target": "price"}}


def _texts(place: Path) -> dict[str, Any]:
    texts(place / "texts.jsonl")
    data = {"source": "texts.jsonl", "input": "text", "target": "label"}
    return {
        "task": "text-classification",
        "data": data,
        "model": {"backbone": str(tiny_bert(place / "bert"))},
        "tune": {"freeze": "none"},
    }


def _adapter(place: Path) -> dict[str, Any]:
    return {**_texts(place), "tune": {"adapter": "lora"}, "stages": ["finetune"]}


def _hidden(place: Path) -> dict[str, Any]:
    texts(place / "texts.jsonl")
    model = {"backbone": str(tiny_bert(place / "bert"))}
    return {"task": "masked-language-modeling", "data": {"source": "texts.jsonl", "input": "text"}, "model": model}


def _writer(place: Path) -> dict[str, Any]:
    draw = np.random.default_rng(0)
    (place / "texts.txt").write_text(
        "\n\n".join(" ".join(draw.choice(["red", "old", "cat", "sees", "a"], draw.integers(9, 30))) for _ in range(60))
    )
    model = {
        "backbone": {"gpt": {"layers": 1, "width": 32, "heads": 2}},
        "tokenizer": {"bpe": {"vocabulary": 270}},
        "max_length": 64,
    }
    return {"task": "language-modeling", "data": {"source": "texts.txt"}, "model": model}


def _talk(place: Path) -> dict[str, Any]:
    lines = [
        json.dumps(
            {"messages": [{"role": "user", "content": f"{a}+{b}?"}, {"role": "assistant", "content": str(a + b)}]}
        )
        for a in range(12)
        for b in range(8)
    ]
    (place / "sums.jsonl").write_text("\n".join(lines))
    model = {"backbone": {"gpt": {"layers": 1, "width": 32, "heads": 2}}, "tokenizer": {"bpe": {"vocabulary": 280}}}
    return {"task": "supervised-fine-tuning", "data": {"source": "sums.jsonl"}, "model": model}


def _liked(place: Path, kind: Any) -> dict[str, Any]:
    draw = np.random.default_rng(0)
    lines = ["user,item,time"] + [f"u{user},i{draw.integers(15)},{n}" for user in range(40) for n in range(8)]
    (place / "liked.csv").write_text("\n".join(lines))
    data = {"source": "liked.csv", "split": {"by": "within", "column": "user"}}
    return {"task": "item-recommendation", "data": data, "model": {"backbone": kind}}


def _clicks(place: Path) -> dict[str, Any]:
    draw = np.random.default_rng(0)
    lines = ["user,item,click"] + [
        f"u{draw.integers(20)},i{draw.integers(15)},{'yes' if draw.random() > 0.4 else 'no'}" for _ in range(300)
    ]
    (place / "clicks.csv").write_text("\n".join(lines))
    return {
        "task": "click-prediction",
        "data": {"source": "clicks.csv", "target": "click"},
        "model": {"backbone": "deepfm"},
    }


def _speech(place: Path, kind: Any) -> dict[str, Any]:
    draw = np.random.default_rng(0)
    lines = ["audio,text"]
    for number in range(24):
        soundfile.write(place / f"{number}.wav", draw.normal(0, 0.1, int(draw.integers(8000, 16000))), 16_000)
        lines.append(f"{number}.wav,{'ab' if number % 2 else 'ba'}")
    (place / "speech.csv").write_text("\n".join(lines))
    return {
        "task": "speech-recognition",
        "data": {"source": "speech.csv", "split": {"by": "random"}},
        "model": {"backbone": kind},
    }


# Each writes its data to a folder and returns the recipe, without `train`.
RECIPES: dict[str, Any] = {
    "pictures": _digits,
    "recurrent": _recurrent,
    "rows": _rows,
    "texts": _texts,
    "adapter": _adapter,
    "hidden": _hidden,
    "writer": _writer,
    "talk": _talk,
    "clicks": _clicks,
    "factors": lambda place: _liked(place, {"factors": {"width": 8}}),
    "sasrec": lambda place: _liked(place, {"sasrec": {"width": 16, "layers": 1, "length": 6}}),
    "deepspeech": lambda place: _speech(place, {"deepspeech": {"channels": 4, "hidden": 16, "layers": 1}}),
    "lstm": lambda place: _speech(
        place, {"deepspeech": {"channels": 4, "hidden": 16, "layers": 1, "cell": "lstm", "ahead": 2}}
    ),
    "conformer": lambda place: _speech(place, {"conformer": {"hidden": 16, "layers": 1, "heads": 2}}),
    "whisper": lambda place: _speech(place, {"whisper": {"layers": 1, "width": 16, "heads": 2, "seconds": 2}}),
}


def train_model(place: Path, name: str) -> Path:
    """Train the recipe of that name for one epoch; return the folder of the saved model."""
    recipe = {"train": SHORT, "eval": {"resamples": 100}, **FLOAT32, **RECIPES[name](place)}
    result = run(recipe, base=place, runs=place / "runs", console=silent())
    return list(result.stages.values())[-1].folder / "model"
