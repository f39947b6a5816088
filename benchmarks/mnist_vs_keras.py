"""The textbook network on MNIST: Keras/TensorFlow, Keras on torch, the HF Trainer, a plain torch loop and Tunewright.

    python benchmarks/mnist_vs_keras.py [--rounds 3] [--peers keras-tensorflow,tunewright] [--skip-install]

Flatten, Dense 128 relu, Dense 10; Adam, learning rate 1e-3; cross entropy from logits; batch 32; 5 epochs on all 60,000
images; accuracy on the 10,000 test images. Each peer runs in an environment of its own under benchmarks/.envs, in a fresh
process each time, in turn: round 1 of all peers, then round 2, and so on. `fit` is the training alone, as each peer
measures it; `process` is the whole process, from outside. Writes benchmarks/results/mnist_vs_keras.{json,md}.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from environments import HERE, OURS, QUICK, REPOSITORY, RESULTS, TORCH, install, processor, versions

DATA = REPOSITORY / "examples" / "mnist" / "data"
REFERENCE = "keras-tensorflow"

PEERS: dict[str, tuple[str, list[list[str]]]] = {
    "keras-tensorflow": ("keras_fit.py", [["tensorflow-cpu==2.21.0", "keras==3.15.1"]]),
    "keras-torch": ("keras_fit.py", [TORCH, ["keras==3.15.1"]]),
    "hf-trainer": ("hf_trainer.py", [TORCH, ["transformers==5.24.0", "accelerate==1.15.0"]]),
    "plain-torch": ("plain_torch.py", [TORCH]),
    "tunewright": ("tunewright_run.py", OURS),
}


def measure(peer: str, python: Path, seed: int) -> dict[str, float]:
    """One fresh process; the peer prints one JSON line at the end."""
    environment = {**os.environ, "PYTHONHASHSEED": "0", "TF_CPP_MIN_LOG_LEVEL": "3", "HF_HUB_OFFLINE": "1"}
    environment["KERAS_BACKEND"] = "torch" if peer == "keras-torch" else "tensorflow"
    start = time.perf_counter()
    command = [python, HERE / "peers" / PEERS[peer][0], DATA, str(seed)]
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    seconds = time.perf_counter() - start
    if done.returncode:
        sys.exit(f"{peer} failed:\n{done.stderr[-3000:]}")
    found = json.loads(done.stdout.strip().splitlines()[-1])
    return {"fit": found["fit_seconds"], "process": seconds, "accuracy": found["accuracy"]}


def summarise(runs: dict[str, list[dict[str, float]]]) -> dict[str, Any]:
    """Medians with their range, and for each peer the median over rounds of the reference's time divided by its own."""
    rows: dict[str, Any] = {}
    for peer, found in runs.items():
        row: dict[str, Any] = {"rounds": len(found)}
        for key in ("fit", "process", "accuracy"):
            values = [entry[key] for entry in found]
            row[key] = {"median": statistics.median(values), "min": min(values), "max": max(values)}
            if key != "accuracy" and REFERENCE in runs:
                ratios = [base[key] / entry[key] for base, entry in zip(runs[REFERENCE], found)]
                row[key]["times_as_fast"] = statistics.median(ratios)
        row["accuracy"]["mean"] = statistics.fmean(entry["accuracy"] for entry in found)
        rows[peer] = row
    return rows


def table(result: dict[str, Any]) -> str:
    lines = [
        "# MNIST: the textbook network, side by side",
        "",
        f"{result['date']}, {result['processor']}, {result['cores']} cores. Median of {result['rounds']} rounds, in turn (min to max); "
        f"“×” is the median over rounds of {REFERENCE}'s time divided by the peer's.",
        "",
        "| peer | fit, s | × | whole process, s | × | test accuracy, mean (range) |",
        "|---|---|---|---|---|---|",
    ]
    for peer, row in result["peers"].items():
        fit, process, accuracy = row["fit"], row["process"], row["accuracy"]
        lines.append(
            f"| {peer} | {fit['median']:.2f} ({fit['min']:.2f} to {fit['max']:.2f}) | {fit.get('times_as_fast', 1):.2f} "
            f"| {process['median']:.2f} ({process['min']:.2f} to {process['max']:.2f}) | {process.get('times_as_fast', 1):.2f} "
            f"| {accuracy['mean']:.4f} ({accuracy['min']:.4f} to {accuracy['max']:.4f}) |"
        )
    lines += [
        "",
        "Versions: "
        + "; ".join(
            f"{peer}: {', '.join(f'{k} {v}' for k, v in found.items())}" for peer, found in result["versions"].items()
        ),
    ]
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=1 if QUICK else 3)
    parser.add_argument("--peers", default=",".join(PEERS))
    parser.add_argument("--skip-install", action="store_true", help="the environments are there already")
    parser.add_argument("--install-only", action="store_true")
    options = parser.parse_args()
    peers = options.peers.split(",")
    pythons = {
        peer: HERE / ".envs" / peer / "bin" / "python" if options.skip_install else install(peer, PEERS[peer][1])
        for peer in peers
    }
    if options.install_only:
        return
    runs: dict[str, list[dict[str, float]]] = {peer: [] for peer in peers}
    for number in range(1, options.rounds + 1):
        for peer in peers:
            runs[peer].append(measure(peer, pythons[peer], number))
            print(f"round {number}  {peer:<18} {runs[peer][-1]}", flush=True)
    result = {
        "date": datetime.date.today().isoformat(),
        "processor": processor(),
        "cores": os.cpu_count(),
        "rounds": options.rounds,
        "peers": summarise(runs),
        "runs": runs,
        "versions": {peer: versions(python) for peer, python in pythons.items()},
    }
    folder = RESULTS
    (folder / "mnist_vs_keras.json").write_text(json.dumps(result, indent=2) + "\n")
    (folder / "mnist_vs_keras.md").write_text(table(result))
    print(table(result))


if __name__ == "__main__":
    main()
