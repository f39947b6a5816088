"""Few Chinese reviews a class: features and a regression, contrastive pairs, ordinary fine-tuning, character n-grams.

    python benchmarks/few_shot.py [--seeds 5] [--threads 1] [--methods features,fine-tuning] [--a-class 8,16,32]

The catalog's `minilm` on `chinese-reviews`. For each seed, another 8, 16 or 32 reviews of each class to learn from and 500
others to be judged on; the same for every method. The regression on n-grams is the baseline of each run's own evaluation.
Contrastive pairs take minutes a run on a CPU, so they can be left out, or measured by themselves.
Writes benchmarks/results/few_shot.json, after every run, and goes on with what is missing.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
from typing import Any

from environments import QUICK, RESULTS

import tunewright
from tunewright.console import silent

RESULT = RESULTS / "few_shot.json"
A_CLASS = (8, 16, 32)
TEST = 100 if QUICK else 500
NGRAMS = "logistic regression on character n-grams"

METHODS: dict[str, dict[str, Any]] = {
    "features": {},  # what a recipe that leaves `tune` out gets
    "fine-tuning": {"tune": {"method": "gradient"}, "train": {"epochs": 20, "batch_size": 8}},
    "contrastive": {"tune": {"method": "contrastive"}, "train": {"epochs": 1, "batch_size": 16}},
}


def measure(method: str, a_class: int, seed: int, threads: int) -> dict[str, float]:
    """One run: its accuracy and log loss, and its baseline's accuracy."""
    train = 2 * a_class
    recipe = {
        "task": "text-classification",
        "seed": seed,
        "data": {
            "source": "chinese-reviews",
            "limit": TEST + train,
            "split": {"valid": 0, "test": TEST / (TEST + train), "by": "stratified"},
        },
        "model": {"backbone": "minilm", "max_length": 64},
        "eval": {"resamples": 100},
        "hardware": {"threads": threads},
        **METHODS[method],
    }
    with tempfile.TemporaryDirectory() as runs:
        summary = tunewright.run(recipe, runs=runs, console=silent()).stages["finetune"].summary
    measured, baselines = summary["evaluation"]["metrics"], summary["evaluation"]["baselines"]
    return {
        "accuracy": measured["accuracy"]["value"],
        "log_loss": measured["log_loss"]["value"],
        "ngrams_accuracy": baselines[-1]["metrics"]["accuracy"]["value"],
        "train_rows": summary["data"]["rows"]["train"],
    }


def table(found: dict[str, dict[str, float]], seeds: int) -> list[dict[str, Any]]:
    """Mean and standard deviation over the seeds."""
    rows: list[dict[str, Any]] = []
    for a_class in A_CLASS:
        for method in METHODS:
            runs = [found[key] for seed in range(seeds) if (key := f"{method} {a_class} {seed}") in found]
            if len(runs) > 1:
                rows.append({"a_class": a_class, "method": method, **_spread(runs, "accuracy"), "runs": len(runs)})
                if method == "features":
                    rows.append(
                        {"a_class": a_class, "method": NGRAMS, **_spread(runs, "ngrams_accuracy"), "runs": len(runs)}
                    )
    return rows


def _spread(runs: list[dict[str, float]], key: str) -> dict[str, float]:
    values = [run[key] for run in runs]
    return {"accuracy": round(statistics.mean(values), 4), "deviation": round(statistics.stdev(values), 4)}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--seeds", type=int, default=2 if QUICK else 5)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument(
        "--methods", type=lambda text: text.split(","), default=["features"] if QUICK else list(METHODS)
    )
    parser.add_argument(
        "--a-class",
        type=lambda text: [int(part) for part in text.split(",")],
        default=A_CLASS[:1] if QUICK else A_CLASS,
    )
    given = parser.parse_args()
    found: dict[str, dict[str, float]] = json.loads(RESULT.read_text())["runs"] if RESULT.exists() else {}
    for seed in range(given.seeds):
        for a_class in given.a_class:
            for method in given.methods:
                if (key := f"{method} {a_class} {seed}") not in found:
                    found[key] = measure(method, a_class, seed, given.threads)
                    print(key, found[key], flush=True)
                    RESULT.write_text(json.dumps({"table": table(found, given.seeds), "runs": found}, indent=2) + "\n")
    for row in table(found, given.seeds):
        print(f"{row['a_class']:>3} a class  {row['method']:<42} {row['accuracy']:.3f} ± {row['deviation']:.3f}")


if __name__ == "__main__":
    main()
