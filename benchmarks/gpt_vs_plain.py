"""A small GPT on Shakespeare's characters: a plain training loop and Tunewright; and the memory of the output's loss.

    python benchmarks/gpt_vs_plain.py [--rounds 3]

The recipe of examples/tiny-char-gpt and a plain loop as in the well-known teaching code, in turn, `rounds` times, each time
with another seed, in fresh processes: the same texts, as many steps of 12 windows of 64 characters, the same validation
works, the same measure of the loss. `fit` is the training alone; Tunewright's has its checkpoints, validation and samples
in it. Then one step of a cross entropy over 64,000 pieces, whole and in chunks. Writes
benchmarks/results/gpt_vs_plain.{json,md}.
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
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
from environments import HERE, REPOSITORY, processor

RECIPE = REPOSITORY / "examples" / "tiny-char-gpt" / "recipe.yaml"
LOSS = {"whole": ["plain", "4096", "512", "64000"], "in chunks": ["chunked", "4096", "512", "64000"]}


def measure(script: str, arguments: list[Any]) -> dict[str, float]:
    command = [sys.executable, HERE / "peers" / script, *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"{script} failed:\n{done.stderr[-3000:]}")
    return json.loads(done.stdout.strip().splitlines()[-1])


def prepare(seed: int, folder: Path) -> Path:
    """train.txt and valid.txt: the works of each part one after the other."""
    out = folder / f"data-{seed}"
    code = "from tunewright.cli import main; main()"
    command = [sys.executable, "-c", code, "data", "prepare", RECIPE, f"seed={seed}", "--out", out]
    subprocess.run(command, check=True, capture_output=True)
    for part in ("train", "valid"):
        tables = [pq.read_table(file, columns=["text"]) for file in sorted(out.glob(f"{part}*.parquet"))]
        texts = [text for table in tables for text in table["text"].to_pylist()]
        (out / f"{part}.txt").write_text("\n\n".join(texts), encoding="utf-8")
    return out


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    rounds = parser.parse_args().rounds
    folder = Path(tempfile.mkdtemp(prefix="gpt-vs-plain-"))
    runs: dict[str, list[dict[str, float]]] = {"Tunewright": [], "plain loop": []}
    for seed in range(rounds):
        data = prepare(seed, folder)
        runs["Tunewright"].append(ours := measure("tunewright_gpt.py", [data, RECIPE, seed]))
        runs["plain loop"].append(measure("plain_gpt.py", [data, int(ours["steps"]), seed]))
        print(seed, {peer: found[-1] for peer, found in runs.items()}, flush=True)
    loss = {kind: measure("cross_entropy.py", arguments) for kind, arguments in LOSS.items()}
    faster = statistics.median(
        (ours["tokens"] / ours["fit_seconds"]) / (theirs["tokens"] / theirs["fit_seconds"])
        for ours, theirs in zip(runs["Tunewright"], runs["plain loop"], strict=True)
    )
    result = {
        "date": datetime.date.today().isoformat(),
        "processor": processor(),
        "cores": os.cpu_count(),
        "times_as_fast": faster,
        "runs": runs,
        "loss": loss,
    }
    lines = [
        "# A small GPT on Shakespeare, character by character",
        "",
        f"{result['date']}, {result['processor']}, {result['cores']} cores; {rounds} rounds in turn; "
        f"{runs['plain loop'][0]['tokens'] / 768:,.0f} steps of 768 tokens. Tunewright's tokens a second are "
        f"{faster:.2f} times those of the plain loop (median over rounds).",
        "",
        "| | fit, s | tokens/s | validation loss, nats a character |",
        "|---|---|---|---|",
    ]
    for peer, found in runs.items():
        speed = statistics.median(entry["tokens"] / entry["fit_seconds"] for entry in found)
        seconds, reached = (statistics.median(entry[key] for entry in found) for key in ("fit_seconds", "loss"))
        lines.append(f"| {peer} | {seconds:.1f} | {speed:,.0f} | {reached:.4f} |")
    lines += ["", "One step of a cross entropy: 4,096 tokens, width 512, 64,000 pieces.", ""]
    lines += ["| logits | seconds | memory at the peak, MiB |", "|---|---|---|"]
    lines += [f"| {kind} | {found['seconds']:.2f} | {found['mebibytes']:,.0f} |" for kind, found in loss.items()]
    (HERE / "results" / "gpt_vs_plain.json").write_text(json.dumps(result, indent=2) + "\n")
    (HERE / "results" / "gpt_vs_plain.md").write_text("\n".join(lines) + "\n")
    print("\n".join(lines))


if __name__ == "__main__":
    main()
