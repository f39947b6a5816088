"""`tunewright tune` against random search with the same number of trial-epochs, on digits and on Chinese reviews.

    python benchmarks/tune_vs_random.py [repeats]

Random search trains each of 20 trials to its end. TPE with ASHA gets as many epochs in all, and so more trials. The winner of each is then
trained as it stands and measured on the test rows; the difference has a t interval over repeats with other seeds.
"""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path
from typing import Any

import optuna
import yaml
from environments import QUICK, RESULTS, processor

from tunewright import run
from tunewright.commands.tune import tune
from tunewright.console import silent
from tunewright.evaluation.intervals import over_seeds
from tunewright.tuning.trials import SearchSettings

TRIALS, EPOCHS = (3, 2) if QUICK else (20, 9)
TASKS: dict[str, dict[str, Any]] = {
    "digits": {
        "task": "image-classification",
        "data": {"source": "digits"},
        "model": {"layers": ["flatten", {"dense": 32, "activation": "relu"}, {"dense": 10}]},
        "train": {"epochs": EPOCHS, "batch_size": 64, "optimizer": "adam"},
        "search": {
            "train.lr": {"log": [1e-5, 1.0]},
            "train.batch_size": [16, 64, 256],
            "train.optimizer": ["adam", "sgd", {"sgd": {"momentum": 0.9}}, "rmsprop"],
            "train.regularization.weight_decay": {"log": [1e-6, 1.0]},
            "train.schedule": ["constant", "cosine", "linear"],
        },
    },
    "chinese-reviews": {
        "task": "text-classification",
        "data": {"source": "chinese-reviews", "limit": 3000},
        "model": {"backbone": "minilm"},
        "tune": {"freeze": "backbone"},
        "train": {"epochs": EPOCHS, "batch_size": 64, "optimizer": "adamw"},
        "search": {
            "train.lr": {"log": [1e-5, 1.0]},
            "train.batch_size": [16, 64, 256],
            "train.optimizer": ["adamw", "sgd", {"sgd": {"momentum": 0.9}}],
            "train.regularization.weight_decay": {"log": [1e-6, 1.0]},
            "train.label_smoothing": {"even": [0.0, 0.3]},
        },
    },
}


def spent(folder: Path) -> int:
    """Epochs that all trials of a search have trained."""
    (place,) = folder.glob("*-tune-*")
    study = optuna.load_study(study_name="tune", storage=f"sqlite:///{place / 'study.db'}")
    return sum(len(trial.intermediate_values) for trial in study.trials)


def searched(recipe: Path, folder: Path, how: str) -> tuple[float, float, int, int]:
    """The winner's validation and test accuracy, and how many trials and epochs it took."""
    if how == "random":
        found = tune(
            recipe,
            [],
            SearchSettings(trials=TRIALS, sampler="random", prune=False),
            seeds=0,
            runs=folder,
            console=silent(),
        )
    else:
        trials = TRIALS
        found = tune(recipe, [], SearchSettings(trials=trials), seeds=0, runs=folder, console=silent())
        while spent(folder) < TRIALS * EPOCHS:
            trials += 1
            found = tune(recipe, [], SearchSettings(trials=trials), seeds=0, runs=folder, console=silent())
    (place,) = folder.glob("*-tune-*")
    overrides = (place / "overrides.txt").read_text().splitlines()
    result = run(recipe, overrides=overrides, runs=folder / "final", console=silent())
    summary = list(result.stages.values())[-1].summary
    best = next(trial.value for trial in found.trials if trial.number == found.best)
    assert best is not None
    return best, summary["evaluation"]["metrics"]["accuracy"]["value"], len(found.trials), spent(folder)


def main() -> None:
    repeats = int(sys.argv[1]) if len(sys.argv) > 1 else 2 if QUICK else 5
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    results: dict[str, Any] = {"machine": processor(), "rows": []}
    lines = [
        "| task | random, valid → test | tune, valid → test | trials in the same epochs | difference on validation rows | on test rows |",
        "|---|---|---|---|---|---|",
    ]
    for name, task in list(TASKS.items())[: 1 if QUICK else None]:
        found: dict[str, list[tuple[float, float, int, int]]] = {"random": [], "tune": []}
        for seed in range(repeats):
            for how, rows in found.items():
                with tempfile.TemporaryDirectory() as place:
                    recipe = Path(place) / "recipe.yaml"
                    recipe.write_text(yaml.safe_dump({**task, "seed": seed, "name": name}, sort_keys=False))
                    rows.append(searched(recipe, Path(place) / how, how))
                    results["rows"].append({"task": name, "how": how, "seed": seed, "found": rows[-1]})
                    print(name, seed, how, rows[-1], flush=True)
        cells = []
        for place in (0, 1):
            estimate = over_seeds([b[place] - a[place] for a, b in zip(found["random"], found["tune"], strict=True)])
            cells.append(f"{estimate.value:+.4f} [{estimate.low:+.4f}, {estimate.high:+.4f}]")
        means = {
            how: [sum(row[place] for row in rows) / len(rows) for place in (0, 1, 2)] for how, rows in found.items()
        }
        lines.append(
            f"| {name} | {means['random'][0]:.4f} → {means['random'][1]:.4f} | {means['tune'][0]:.4f} → {means['tune'][1]:.4f} | "
            f"{means['random'][2]:.0f} and {means['tune'][2]:.0f} | {cells[0]} | {cells[1]} |"
        )
    (RESULTS / "tune_vs_random.json").write_text(json.dumps(results, indent=1) + "\n")
    (RESULTS / "tune_vs_random.md").write_text("\n".join(lines) + "\n")
    print("\n".join(lines))


if __name__ == "__main__":
    main()
