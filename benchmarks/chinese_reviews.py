"""The Chinese reviews, all 35,124: MiniLM frozen, its last two layers, LoRA and full, and what needs no pretrained model.

    python benchmarks/chinese_reviews.py

Carries out the recipes of examples/chinese-reviews one after the other, going on where it was stopped, and compares each
with the best of them and with logistic regression on character n-grams, on the same test rows. Accuracies only: for
times see finetune_vs_hf.py. Writes benchmarks/results/chinese_reviews.{json,md}.
"""

from __future__ import annotations

import datetime
import json
from pathlib import Path
from typing import Any

from environments import QUICK, REPOSITORY, RESULTS, WORK

import tunewright
from tunewright.evaluation.paired_comparison import compare_predictions
from tunewright.pipeline.results.predictions import read_predictions

# Of all recipes.
OVERRIDES = ["data.limit=300", "train.epochs=1"] if QUICK else []
RECIPES = {
    "frozen": "recipe.yaml",
    "last two layers": "last-two.yaml",
    "LoRA": "lora.yaml",
    "full": "full.yaml",
}


def stage(recipe: str) -> Path:
    """The folder of the recipe's finished stage; trained now unless it is there."""
    runs = WORK / "chinese-reviews" / Path(recipe).stem
    finished = [
        path.parent for path in runs.glob("*/finetune/summary.json") if "evaluation" in json.loads(path.read_text())
    ]
    if not finished:
        tunewright.run(REPOSITORY / "examples" / "chinese-reviews" / recipe, overrides=OVERRIDES, runs=runs)
        finished = [path.parent for path in runs.glob("*/finetune/summary.json")]
    return finished[0]


def written(estimate: dict[str, Any]) -> str:
    return f"{estimate['value']:.4f} [{estimate['low']:.4f}, {estimate['high']:.4f}]"


def main() -> None:
    rows: dict[str, Any] = {}
    folders = {name: stage(recipe) for name, recipe in RECIPES.items()}
    summaries = {name: json.loads((folder / "summary.json").read_text()) for name, folder in folders.items()}
    best = max(summaries, key=lambda name: summaries[name]["evaluation"]["metrics"]["accuracy"]["value"])
    for name, summary in summaries.items():
        difference = compare_predictions(
            read_predictions(folders[name]), read_predictions(folders[best]), "accuracy", resamples=1000
        )
        rows[name] = {
            "accuracy": summary["evaluation"]["metrics"]["accuracy"],
            "epochs": summary["training"]["epochs"],
            "trained_parameters": sum(entry["parameters"] for entry in summary["certificate"]["trained"]),
            "against_the_best": "" if name == best else difference.sentence("accuracy"),
        }
    baselines = {entry["name"]: entry["metrics"]["accuracy"] for entry in summaries[best]["evaluation"]["baselines"]}
    result = {
        "date": datetime.date.today().isoformat(),
        "test_rows": summaries[best]["evaluation"]["rows"],
        "tuned": rows,
        "baselines": baselines,
    }
    lines = [
        f"# {result['test_rows']:,} Chinese reviews that were not trained on: accuracy with its 95 % interval",
        "",
        "| | epochs | trained parameters | accuracy | against the best of the four |",
        "|---|---|---|---|---|",
    ]
    for name, row in rows.items():
        lines.append(
            f"| MiniLM, {name} | {row['epochs']} | {row['trained_parameters']:,} | {written(row['accuracy'])} | {row['against_the_best']} |"
        )
    lines += [f"| {name} | | | {written(accuracy)} | |" for name, accuracy in baselines.items()]
    plain, reached = list(baselines.values())[-1]["value"], rows[best]["accuracy"]["value"]
    winner = f"MiniLM, {best}" if reached > plain else list(baselines)[-1]
    lines += ["", f"The highest accuracy is that of: {winner}."]
    (RESULTS / "chinese_reviews.json").write_text(json.dumps(result, indent=2, ensure_ascii=False) + "\n")
    (RESULTS / "chinese_reviews.md").write_text("\n".join(lines) + "\n")
    print("\n".join(lines))


if __name__ == "__main__":
    main()
