"""Write recipes of small language models, with data that they can learn: sentences, sums of two digits, a preference."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

NAMES, VERBS, THINGS = ("Anna", "Ben", "Clara"), ("sees", "likes"), ("a house", "the sea", "the moon", "海")


def tales(count: int) -> list[str]:
    """Return short texts of sentences such as "Anna sees the moon."."""
    draw = np.random.Generator(np.random.Philox(key=1))

    def sentence() -> str:
        return f"{draw.choice(NAMES)} {draw.choice(VERBS)} {draw.choice(THINGS)}."

    return [" ".join(sentence() for _ in range(draw.integers(1, 6))) for _ in range(count)]


def language_recipe(folder: Path, **changes: Any) -> dict[str, Any]:
    """Return a recipe that pretrains on tales, with its data in the folder."""
    (folder / "tales.txt").write_text("\n".join(tales(240)) + "\n", encoding="utf-8")
    gpt = {"layers": 2, "width": 32, "heads": 2, "context": 48}
    recipe: dict[str, Any] = {
        "task": "language-modeling",
        "data": {"source": "tales.txt"},
        "model": {"backbone": {"gpt": gpt}, "tokenizer": "characters"},
        "train": {"epochs": 2, "batch_size": 8, "lr": 5e-3},
        "hardware": {"precision": "float32"},
        "eval": {"resamples": 100},
    }
    return {**recipe, **changes}


def chat_recipe(folder: Path, **changes: Any) -> dict[str, Any]:
    """Return a recipe that pretrains on texts and then answers sums of two digits, with its data in the folder."""
    sums = [(a, b) for a in range(10) for b in range(10)]
    lines = [
        {"messages": [{"role": "user", "content": f"{a}+{b}?"}, {"role": "assistant", "content": str(a + b)}]}
        for a, b in sums * 3
    ]
    (folder / "sums.jsonl").write_text("\n".join(map(json.dumps, lines)))
    (folder / "texts.txt").write_text("\n".join(f"{a}+{b}? {a + b} user assistant" for a, b in sums))
    recipe: dict[str, Any] = {
        "task": "supervised-fine-tuning",
        "data": {"source": "sums.jsonl"},
        "model": {
            "backbone": {"gpt": {"layers": 2, "width": 32, "heads": 2, "context": 64}},
            "tokenizer": {"bpe": {"vocabulary": 270}},
        },
        "train": {"epochs": 3, "batch_size": 4, "lr": 1e-2},
        "hardware": {"precision": "float32"},
        "eval": {"resamples": 100},
        "stages": [
            {
                "pretrain": {
                    "task": "language-modeling",
                    "data": {"source": "texts.txt", "input": "text"},
                    "train": {"epochs": 1},
                }
            },
            "finetune",
        ],
    }
    return {**recipe, **changes}


def preference_recipe(folder: Path, **changes: Any) -> dict[str, Any]:
    """Return a recipe whose model answers with any digit and is then tuned to prefer even ones, with its data in the folder."""
    answers = [{"prompt": f"say {a}{b}", "completion": str((a + b) % 10)} for a in range(10) for b in range(10)]
    pairs = [
        {
            "chosen": [{"role": "user", "content": f"say {a}{b}"}, {"role": "assistant", "content": str(2 * (a % 5))}],
            "rejected": [
                {"role": "user", "content": f"say {a}{b}"},
                {"role": "assistant", "content": str(2 * (a % 5) + 1)},
            ],
        }
        for a in range(10)
        for b in range(10)
    ]
    (folder / "answers.jsonl").write_text("\n".join(map(json.dumps, answers)))
    (folder / "pairs.jsonl").write_text("\n".join(map(json.dumps, pairs)))
    recipe: dict[str, Any] = {
        "task": "preference-tuning",
        "data": {"source": "pairs.jsonl"},
        "model": {
            "backbone": {"gpt": {"layers": 2, "width": 32, "heads": 2, "context": 64}},
            "tokenizer": {"bpe": {"vocabulary": 262}},
        },
        "train": {"epochs": 3, "batch_size": 8, "lr": 3e-3},
        "hardware": {"precision": "float32"},
        "eval": {"resamples": 100},
        "stages": [
            {
                "pretrain": {
                    "task": "supervised-fine-tuning",
                    "data": {"source": "answers.jsonl"},
                    "train": {"epochs": 2, "objective": "next_tokens", "lr": 1e-2},
                    "eval": {"metrics": ["exact_match"]},
                }
            },
            "finetune",
        ],
    }
    return {**recipe, **changes}
