"""Fine-tuning MiniLM on Chinese reviews: the Hugging Face Trainer, sentence features and Tunewright.

    python benchmarks/finetune_vs_hf.py [--rounds 3] [--rows 6000] [--frozen 1:6000,5:6000,20:1500]

Of `rows` reviews two thirds are trained on, the rest is the test, equal texts on one side; at most 128 tokens, batch 32,
AdamW 5e-5 with linear decay. Full fine-tuning for one epoch: the Trainer in float32 (its default) and bfloat16,
Tunewright, and logistic regression on sentence features, in turn, `rounds` times, each time with another split and seed,
each in a fresh process. Then the same network with everything but the head frozen, for the given numbers of epochs and of
rows, the Trainer and Tunewright in turn; Tunewright with an empty cache each time. `fit` is the training alone, with
Tunewright's passes over frozen blocks and its measurements in it; `process` is the whole process, for Tunewright with
data preparation, baselines, intervals and the report. Writes benchmarks/results/finetune_vs_hf.{json,md}.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from environments import HERE, OURS, QUICK, RESULTS, TORCH, install, processor, versions

TRAINER = [TORCH, ["transformers==5.24.0", "accelerate==1.15.0", "pyarrow"]]
FULL = {
    "HF Trainer, float32": ("hf_trainer_text.py", []),
    "HF Trainer, bfloat16": ("hf_trainer_text.py", ["bf16"]),
    "features + logistic regression": ("sentence_features.py", []),
    "Tunewright": ("tunewright_text.py", []),
}
FROZEN = {
    "HF Trainer, float32, frozen": ("hf_trainer_text.py", ["frozen"]),
    "Tunewright, frozen": ("tunewright_text.py", ["frozen"]),
}
COMMAND = "from tunewright.cli import main; main()"


def backbone(python: Path) -> str:
    code = "from tunewright.models.hub.catalog import catalog_folder; print(catalog_folder('minilm'))"
    return subprocess.run([python, "-c", code], capture_output=True, text=True, check=True).stdout.strip()


def prepare(python: Path, rows: int, seed: int, folder: Path) -> Path:
    """The reviews of one round, split: the same rows for everybody."""
    recipe = folder / f"recipe-{rows}-{seed}.yaml"
    split = "{valid: 0, test: 0.3333333333333333, by: group, column: text}"
    data = f"{{source: chinese-reviews, input: text, limit: {rows}, split: {split}}}"
    recipe.write_text(f"task: text-classification\nseed: {seed}\ndata: {data}\n")
    out = folder / f"data-{rows}-{seed}"
    if out.exists():
        return out
    subprocess.run([python, "-c", COMMAND, "data", "prepare", recipe, "--out", out], check=True, capture_output=True)
    return out


def measure(script: str, python: Path, arguments: list[str], environment: dict[str, str]) -> dict[str, float]:
    start = time.perf_counter()
    command = [python, HERE / "peers" / script, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, **environment})
    seconds = time.perf_counter() - start
    if done.returncode:
        sys.exit(f"{script} failed:\n{done.stderr[-3000:]}")
    found = json.loads(done.stdout.strip().splitlines()[-1])
    return {"rows": found["rows"], "fit": found["fit_seconds"], "process": seconds, "accuracy": found["accuracy"]}


def row(runs: list[dict[str, float]], reference: list[dict[str, float]], epochs: int) -> dict[str, Any]:
    """Medians, and the median over rounds of the reference's time divided by the peer's own."""
    return {
        "epochs": epochs,
        "rounds": len(runs),
        "rows": round(statistics.median(entry["rows"] for entry in runs)),
        "fit": statistics.median(entry["fit"] for entry in runs),
        "process": statistics.median(entry["process"] for entry in runs),
        "accuracy": [entry["accuracy"] for entry in runs],
        "examples_per_second": statistics.median(epochs * entry["rows"] / entry["fit"] for entry in runs),
        "times_as_fast": statistics.median(one["fit"] / other["fit"] for one, other in zip(reference, runs)),
    }


def table(result: dict[str, Any]) -> str:
    lines = [
        "# Fine-tuning MiniLM on Chinese reviews, side by side",
        "",
        f"{result['date']}, {result['processor']}, {result['cores']} cores; medians of the rounds, in turn. “×” is the "
        "median over rounds of the time of the HF Trainer in float32 (frozen: on the same frozen network, as many epochs) "
        "divided by the peer's.",
        "",
        "| peer | training rows | epochs | rounds | fit, s | examples/s | × | whole process, s | test accuracy |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for entry in result["rows"]:
        accuracy = statistics.fmean(entry["accuracy"])
        lines.append(
            f"| {entry['peer']} | {entry['rows']:,} | {entry['epochs']} | {entry['rounds']} | {entry['fit']:.1f} "
            f"| {entry['examples_per_second']:,.1f} | {entry['times_as_fast']:.2f} | {entry['process']:.1f} | {accuracy:.4f} |"
        )
    found = "; ".join(
        f"{peer}: {', '.join(f'{k} {v}' for k, v in known.items())}" for peer, known in result["versions"].items()
    )
    return "\n".join([*lines, "", f"Versions: {found}"]) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=1 if QUICK else 3)
    parser.add_argument("--rows", type=int, default=200 if QUICK else 6000)
    parser.add_argument(
        "--frozen", default="1:200" if QUICK else "1:6000,5:6000,20:1500", help="epochs:rows, separated by commas"
    )
    options = parser.parse_args()
    pythons = {"trainer": install("hf-trainer-text", TRAINER), "tunewright": install("tunewright", OURS)}
    folder = Path(tempfile.mkdtemp(prefix="finetune-vs-hf-"))
    pretrained = backbone(pythons["tunewright"])

    def once(script: str, extra: list[str], seed: int, epochs: int, rows: int) -> dict[str, float]:
        ours = script == "tunewright_text.py"
        first = str(rows if ours else prepare(pythons["tunewright"], rows, seed, folder))
        python = pythons["trainer"] if script == "hf_trainer_text.py" else pythons["tunewright"]
        environment = {"HF_HUB_OFFLINE": "1"}
        if ours:  # with the data fetched, and nothing computed before
            environment["TUNEWRIGHT_CACHE"] = tempfile.mkdtemp(dir=folder)
            packages = Path(os.environ.get("TUNEWRIGHT_CACHE", "~/.cache/tunewright")).expanduser() / "packages"
            (Path(environment["TUNEWRIGHT_CACHE"]) / "packages").symlink_to(packages)
        found = measure(script, python, [first, pretrained, str(epochs), str(seed), *extra], environment)
        print(f"seed {seed}  {script:<22} {' '.join(extra):<12} {epochs} epochs  {found}", flush=True)
        return found

    rows: list[dict[str, Any]] = []
    runs: dict[str, list[dict[str, float]]] = {peer: [] for peer in FULL}
    for number in range(1, options.rounds + 1):
        for peer, (script, extra) in FULL.items():
            runs[peer].append(once(script, extra, number, 1, options.rows))
    reference = runs["HF Trainer, float32"]
    rows += [{"peer": peer, **row(found, reference, 1)} for peer, found in runs.items()]
    frozen: dict[str, Any] = {}
    for pair in filter(None, options.frozen.split(",")):
        epochs, count = (int(part) for part in pair.split(":"))
        found = {peer: [once(script, extra, 1, epochs, count)] for peer, (script, extra) in FROZEN.items()}
        reference = found["HF Trainer, float32, frozen"]
        rows += [{"peer": peer, **row(one, reference, epochs)} for peer, one in found.items()]
        frozen[pair] = found
    result = {
        "date": datetime.date.today().isoformat(),
        "processor": processor(),
        "cores": os.cpu_count(),
        "rows": rows,
        "runs": {"full": runs, "frozen": frozen},
        "versions": {peer: versions(python) for peer, python in pythons.items()},
    }
    (RESULTS / "finetune_vs_hf.json").write_text(json.dumps(result, indent=2) + "\n")
    (RESULTS / "finetune_vs_hf.md").write_text(table(result))
    print(table(result))


if __name__ == "__main__":
    main()
