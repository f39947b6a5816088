"""How near plans come: for every example recipe and thirteen others, what was foretold beside what was measured.

Four processes look at each recipe, one after the other: one plans by sizes and single operations alone (`--no-probe`), one carries out
real steps, one plans as usual, one carries out real steps again, as the speed of a machine that is shared
changes within minutes. Where it changed by more than a sixth from the one to the other, whatever the plan said, the last two are done again,
up to three times. The networks have random weights, so that nothing depends on a stage before. Of the Chinese
reviews 6,000 are read, but where a tokenizer is trained on them.

    python benchmarks/plan_accuracy.py [--only NAME] [--device cuda]     # on a card: it is planned by its maker's figures

With `--only` the rows of that recipe take their place among those that were measured before; each row says on which processor it was.

Speech needs `python examples/speech/make_corpus.py` first, the newspaper `python examples/gpt-newspaper/make_sums.py`.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from statistics import median
from typing import Any

import torch
import yaml
from environments import QUICK, RESULTS, processor

ROOT = Path(__file__).resolve().parent.parent
# Seconds for which real steps are taken, and how many at most: more than a plan takes.
MEASURED = (0.5 if QUICK else 8.0, 2000)
# Where batches have many lengths, for each of which the libraries keep something.
MEASURED_LENGTHS = (0.5 if QUICK else 20.0, 2000)
# Two measurements of the same steps are alike where they differ by no more than this; so often they are done again.
ALIKE, AGAIN = 7 / 6, 1 if QUICK else 3
EXAMPLES = [
    "mnist/recipe.yaml",
    "tiny-char-gpt/recipe.yaml",
    "gpt-newspaper/recipe.yaml",
    "image-finetune/recipe.yaml",
    "chinese-reviews/recipe.yaml",
    "chinese-reviews/full.yaml",
    "chinese-reviews/last-two.yaml",
    "chinese-reviews/lora.yaml",
    "chinese-reviews/pretrain.yaml",
    "movielens/items.yaml",
    "movielens/clicks.yaml",
    "speech/recipe.yaml",
]
REVIEWS = {"source": "chinese-reviews", "input": "text", "limit": 4000}
SHAKESPEARE = {"source": "shakespeare", "input": "text", "split": {"valid": 0.1, "test": 0.1}, "limit": 200}
MOVIES = {"source": "movielens-100k", "user": "user_id", "item": "item_id"}
CLICKS = {
    "source": "movielens-100k",
    "input": ["user_id", "item_id", "age", "gender", "occupation"],
    "target": "rating",
    "liked": {"at_least": 4, "not_at_most": 2},
}
GENERATED: dict[str, dict[str, Any]] = {
    "wide mlp": {
        "task": "image-classification",
        "data": {"source": "mnist", "split": {"valid": 0.05}, "limit": 10000},
        "model": {"backbone": {"mlp": {"hidden": [2048, 2048]}}},
        "train": {"batch_size": 256},
    },
    "convolutions": {
        "task": "image-classification",
        "data": {"source": "mnist", "split": {"valid": 0.05}, "limit": 5000},
        "model": {
            "layers": [
                {"conv2d": 32, "kernel": 3, "activation": "relu"},
                {"max_pool": 2},
                {"conv2d": 64, "kernel": 3, "activation": "relu"},
                {"max_pool": 2},
                "flatten",
                {"dense": 10},
            ]
        },
        "train": {"batch_size": 64},
    },
    "resnet20": {
        "task": "image-classification",
        "data": {"source": "digits", "resize": [32, 32]},
        "model": {"backbone": "resnet20"},
        "train": {"batch_size": 64, "optimizer": {"sgd": {"momentum": 0.9}}, "lr": 0.1},
    },
    "resnet18, added up": {
        "task": "image-classification",
        "data": {"source": "digits", "resize": [64, 64]},
        "model": {"backbone": "resnet18"},
        "train": {"batch_size": 16, "accumulate": 2},
    },
    "bert, new": {
        "task": "text-classification",
        "data": REVIEWS,
        "model": {
            "backbone": {"bert": {"layers": 4, "width": 256, "heads": 4}},
            "tokenizer": {"wordpiece": {"vocabulary": 3000}},
        },
        "train": {"batch_size": 16},
    },
    "gpt, wider": {
        "task": "language-modeling",
        "data": SHAKESPEARE,
        "model": {
            "backbone": {"gpt": {"layers": 6, "heads": 6, "width": 384, "context": 256}},
            "tokenizer": "characters",
        },
        "train": {"batch_size": 8, "optimizer": "muon"},
    },
    "gpt, recomputed": {
        "task": "language-modeling",
        "data": SHAKESPEARE,
        "model": {
            "backbone": {"gpt": {"layers": 4, "heads": 4, "width": 256, "context": 128}},
            "tokenizer": {"bpe": {"vocabulary": 2000}},
        },
        "train": {"batch_size": 16},
        "hardware": {"gradient_checkpointing": True},
    },
    "masked bert": {
        "task": "masked-language-modeling",
        "data": REVIEWS,
        "model": {
            "backbone": {"bert": {"layers": 3, "width": 192, "heads": 3}},
            "tokenizer": {"wordpiece": {"vocabulary": 3000}},
        },
        "train": {"batch_size": 32},
    },
    "minilm, 4 bits": {
        "task": "text-classification",
        "data": REVIEWS,
        "model": {"backbone": "minilm"},
        "tune": {"adapter": {"lora": {"r": 16}}, "quantize": "nf4"},
        "train": {"batch_size": 16, "optimizer": "adamw_8bit"},
    },
    "neumf": {
        "task": "item-recommendation",
        "data": MOVIES,
        "model": {"backbone": "neumf"},
        "train": {"batch_size": 1024},
    },
    "sasrec": {
        "task": "item-recommendation",
        "data": {**MOVIES, "split": {"by": "last", "column": "user_id", "order": "timestamp"}},
        "model": {"backbone": "sasrec"},
        "train": {"batch_size": 128},
    },
    "dcn_v2": {
        "task": "click-prediction",
        "data": CLICKS,
        "model": {"backbone": "dcn_v2", "head": [{"dense": "auto"}]},
        "train": {"batch_size": 1024},
    },
    "conformer": {
        "task": "speech-recognition",
        "data": {"source": str(ROOT / "examples/speech/corpus/new.csv")},
        "model": {"backbone": "conformer"},
        "train": {"batch_seconds": 30},
    },
}


def real(recipe: Path, changes: list[str]) -> list[dict[str, Any]]:
    """What real steps of each stage take, one stage after the other as in a run: seconds a step, bytes of tensors and of the process at
    their peaks."""
    from tunewright.console import silent
    from tunewright.pipeline.read_recipe import read_recipe
    from tunewright.pipeline.session.memory import forget_peak, peak_memory
    from tunewright.pipeline.session.session import open_session
    from tunewright.planning.dry_run import run_dry, timed_steps
    from tunewright.planning.plan import given_stages, plan_stage, planned_machine
    from tunewright.recipe.stages import stage_recipes

    loaded, _, _, base, _ = read_recipe(recipe, changes, None)
    stages = list(given_stages(stage_recipes(loaded), base, silent()))
    # As a run does, which plans first: that loads more of PyTorch than training does.
    for given in stages:
        plan_stage(given, planned_machine(None, silent()), probe=False, console=silent())
    found: list[dict[str, Any]] = []
    for given in stages:
        forget_peak()
        ingredients = given.ingredients(given.stage.recipe, "random")
        if ingredients.tune.method == "features":
            continue
        ready = open_session(ingredients, None, silent())
        encoding = peak_memory() or 0
        measured = MEASURED if len(set(ready.batches.sizes(0))) < 4 else MEASURED_LENGTHS
        timed = timed_steps(ingredients, ready, *measured, others=True)
        times, process = timed.seconds, max(encoding, timed.process or 0)
        dry_run = run_dry(ingredients, silent(), ready)
        found.append(
            {
                "stage": given.stage.name,
                "seconds": sum(times) / len(times) + dry_run.reading,
                "steps": len(times),
                "tensors": dry_run.most.most,
                "process": process,
            }
        )
        del ingredients, ready, dry_run
    return found


def in_a_process(*arguments: str) -> Any:
    found = subprocess.run([sys.executable, *arguments], capture_output=True, text=True, cwd=ROOT, check=False)
    if found.returncode:
        raise SystemExit(f"{' '.join(arguments)}\n{found.stdout}\n{found.stderr}")
    return json.loads(found.stdout.strip().splitlines()[-1] if "--real" in arguments else found.stdout)


def compare(name: str, recipe: Path, changes: list[str]) -> list[dict[str, Any]]:
    """A row for each stage of a recipe."""
    command = [
        "-c",
        "from tunewright.cli import main; main()",
        "plan",
        str(recipe),
        *changes,
        "--json",
    ]
    estimated = {made["stage"]: made for made in in_a_process(*command, "--no-probe")}
    carry_out = [__file__, "--real", str(recipe), "--changes", *changes]
    after = in_a_process(*carry_out)
    for _ in range(AGAIN):
        before = after
        timed = {made["stage"]: made for made in in_a_process(*command)}
        after = in_a_process(*carry_out)
        if all(alike(found["seconds"], again["seconds"]) for found, again in zip(before, after)):
            break
    rows: list[dict[str, Any]] = []
    for found, again in zip(before, after, strict=True):
        stage = found["stage"]
        rows.append(
            {
                "name": f"{name}, {stage}",
                "basis": timed[stage]["basis"],
                "seconds": (found["seconds"] + again["seconds"]) / 2,
                "steady": alike(found["seconds"], again["seconds"]),
                "estimated_seconds": estimated[stage]["step"]["middle"],
                "timed_seconds": timed[stage]["step"]["middle"],
                "tensors": found["tensors"],
                "planned_tensors": timed[stage]["peak"],
                "process": max(found["process"], again["process"]),
                "planned_process": timed[stage]["process"]["middle"],
                "estimated_process": estimated[stage]["process"]["middle"],
                "machine": f"{processor()}, {torch.backends.cpu.get_cpu_capability()}",
            }
        )
        print(line(rows[-1]), flush=True)
    return rows


def alike(one: float, other: float) -> bool:
    return max(one, other) <= ALIKE * min(one, other)


def error(foretold: float, measured: float) -> float:
    return foretold / measured - 1


def line(row: dict[str, Any]) -> str:
    def percent(foretold: str, measured: str) -> str:
        return f"{100 * error(row[foretold], row[measured]):+.0f} %"

    return (
        f"| {row['name']} | {row['tensors'] / 2**20:.1f} | {percent('planned_tensors', 'tensors')} "
        f"| {row['process'] / 2**20:.0f} | {percent('planned_process', 'process')} "
        f"| {1000 * row['seconds']:.2f}{'' if row.get('steady', True) else ' *'} "
        f"| {percent('timed_seconds', 'seconds')} | {percent('estimated_seconds', 'seconds')} | {row['machine']} |"
    )


def summary(rows: list[dict[str, Any]]) -> str:
    def said(foretold: str, measured: str, within: float) -> str:
        errors = [abs(error(row[foretold], row[measured])) for row in rows]
        inside = sum(found <= within for found in errors)
        return f"median {100 * median(errors):.0f} %, {inside} of {len(errors)} within {100 * within:.0f} %"

    return (
        f"Tensors at the peak: {said('planned_tensors', 'tensors', 0.05)}. The process at its peak: "
        f"{said('planned_process', 'process', 0.15)}. A step, as planned: {said('timed_seconds', 'seconds', 0.25)}; "
        f"without real steps (`--no-probe`): {said('estimated_seconds', 'seconds', 0.25)}."
    )


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--only", default="mnist" if QUICK else "")
    arguments.add_argument("--device", default="auto")
    arguments.add_argument("--real", type=Path)
    arguments.add_argument("--changes", nargs="*", default=[])
    chosen = arguments.parse_args()
    if chosen.real:
        print(json.dumps(real(chosen.real, chosen.changes)))
        return
    kept = json.loads((RESULTS / "plan_accuracy.json").read_text()) if chosen.only and not QUICK else []
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as folder:
        recipes = {
            name.removesuffix("/recipe.yaml").removesuffix(".yaml"): ROOT / "examples" / name for name in EXAMPLES
        }
        for number, (name, recipe) in enumerate(GENERATED.items()):
            recipes[name] = Path(folder) / f"{number}.yaml"
            recipes[name].write_text(
                yaml.safe_dump({**recipe, "train": {"epochs": 2, **recipe["train"]}}, sort_keys=False)
            )
        for name, recipe in recipes.items():
            if chosen.only not in name:
                continue
            whole = not name.startswith("chinese-reviews") or name.endswith("pretrain")
            fewer = [] if whole else ["data.limit=6000"]
            rows += compare(name, recipe, [f"hardware.device={chosen.device}", *fewer])
            again = {row["name"] for row in rows}
            write([row for row in kept if row["name"] not in again] + rows)
    print(summary(rows))


def write(rows: list[dict[str, Any]]) -> None:
    """The figures so far, as JSON and as a table."""
    head = (
        "| stage | tensors, MiB | plan | process, MiB | plan | a step, ms | plan | without real steps | processor |\n"
        "|---|---:|---:|---:|---:|---:|---:|---:|---|"
    )
    (RESULTS / "plan_accuracy.json").write_text(json.dumps(rows, indent=1) + "\n")
    text = "\n".join([f"# How near plans come\n\n{summary(rows)}\n\n{head}", *map(line, rows)])
    text += "\n\n\\* The machine's speed changed by more than a sixth between two measurements of the same steps, three times in turn."
    (RESULTS / "plan_accuracy.md").write_text(text + "\n")


if __name__ == "__main__":
    main()
