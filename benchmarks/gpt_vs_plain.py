"""A small GPT on Shakespeare's characters: a plain training loop and Tunewright; and the memory of the output's loss.

    python benchmarks/gpt_vs_plain.py [--rounds 3]

The recipe of examples/tiny-char-gpt and a plain loop as in the well-known teaching code, `rounds` times, each time with another
seed, in fresh processes: the same texts, as many steps of 12 windows of 64 characters, the same validation works, the same
measure of the loss. A third run learns from half the texts, to see how soon the plain loop's loss is reached. All are stopped
and let go in turn every few seconds, so that a busy moment of the machine falls on each. `fit` is the training loop;
Tunewright's has its checkpoints, validation and samples in it. What is done before, network and tokenizer, is given apart. Then
one step of a cross entropy over 64,000 pieces, whole and in chunks. Writes benchmarks/results/gpt_vs_plain.{json,md}.
"""

from __future__ import annotations

import argparse
import contextlib
import datetime
import json
import math
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
from environments import HERE, QUICK, REPOSITORY, RESULTS, processor

RECIPE = REPOSITORY / "examples" / "tiny-char-gpt" / "recipe.yaml"
HALF = "Tunewright, half the texts"
# Seconds that each runs before it is the other's turn.
TURN = 3.0
SIZES = ["256", "64", "2000"] if QUICK else ["4096", "512", "64000"]
LOSS = {"whole": ["plain", *SIZES], "in chunks": ["chunked", *SIZES]}
# Works of Shakespeare that are read: all, and those of HALF.
WHOLE, FEWER = (["data.limit=24"], ["data.limit=12"]) if QUICK else ([], ["data.limit=160"])


def measure(script: str, arguments: list[Any]) -> dict[str, float]:
    command = [sys.executable, HERE / "peers" / script, *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"{script} failed:\n{done.stderr[-3000:]}")
    return json.loads(done.stdout.strip().splitlines()[-1])


def measure_in_turn(commands: dict[str, list[Any]]) -> dict[str, dict[str, Any]]:
    """What each prints, with the seconds of its preparation and of its fit in which it was not stopped."""
    running = {
        name: subprocess.Popen(
            [sys.executable, HERE / "peers" / str(script), *map(str, arguments)],
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        for name, (script, *arguments) in commands.items()
    }
    for process in running.values():
        os.killpg(process.pid, signal.SIGSTOP)
    turns: dict[str, list[tuple[float, float]]] = {name: [] for name in running}
    while any(process.poll() is None for process in running.values()):
        for name, process in running.items():
            if process.poll() is not None:
                continue
            os.killpg(process.pid, signal.SIGCONT)
            began = time.perf_counter()
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(TURN)
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGSTOP)
            turns[name].append((began, time.perf_counter()))
    found: dict[str, dict[str, Any]] = {}
    for name, process in running.items():
        if process.returncode:
            sys.exit(f"{name} failed")
        entry = json.loads(process.communicate()[0].strip().splitlines()[-1])
        for part in ("prepared", "fit"):
            first, last = entry.pop(part)
            entry[f"{part}_seconds"] = sum(max(0.0, min(last, end) - max(first, begin)) for begin, end in turns[name])
        found[name] = entry
    return found


def prepare(seed: int, folder: Path) -> tuple[Path, int]:
    """A folder with train.txt and valid.txt, the works of each part one after the other; and the steps of an epoch."""
    out = folder / f"data-{seed}"
    code = "from tunewright.cli import main; main()"
    command = [sys.executable, "-c", code, "data", "prepare", RECIPE, f"seed={seed}", *WHOLE, "--out", out]
    subprocess.run(command, check=True, capture_output=True)
    for part in ("train", "valid"):
        tables = [pq.read_table(file, columns=["text"]) for file in sorted(out.glob(f"{part}*.parquet"))]
        texts = [text for table in tables for text in table["text"].to_pylist()]
        (out / f"{part}.txt").write_text("\n\n".join(texts), encoding="utf-8")
        if part == "train":
            tokens = sum(len(text) + 2 for text in texts)  # with its beginning and end
    return out, math.ceil(math.ceil(tokens / 65) / 12)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=1 if QUICK else 3)
    rounds = parser.parse_args().rounds
    folder = Path(tempfile.mkdtemp(prefix="gpt-vs-plain-"))
    runs: dict[str, list[dict[str, float]]] = {"Tunewright": [], "plain loop": [], HALF: []}
    for seed in range(rounds):
        data, steps = prepare(seed, folder)
        commands = {
            "Tunewright": ["tunewright_gpt.py", data, RECIPE, seed, *WHOLE],
            "plain loop": ["plain_gpt.py", data, steps, seed],
            HALF: ["tunewright_gpt.py", data, RECIPE, seed, *FEWER],
        }
        for name, entry in measure_in_turn(commands).items():
            runs[name].append(entry)
        assert runs["Tunewright"][-1]["steps"] == steps
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
        f"{result['date']}, {result['processor']}, {result['cores']} cores; {rounds} rounds, all by turns of three seconds; "
        f"{runs['plain loop'][0]['tokens'] / 768:,.0f} steps of 768 tokens. Tunewright's tokens a second are "
        f"{faster:.2f} times those of the plain loop (median over rounds).",
        "",
        "| | prepared, s | fit, s | tokens/s | validation loss, nats a character |",
        "|---|---|---|---|---|",
    ]
    for peer, found in runs.items():
        speed = statistics.median(entry["tokens"] / entry["fit_seconds"] for entry in found)
        before, seconds, reached = (
            statistics.median(entry[key] for entry in found) for key in ("prepared_seconds", "fit_seconds", "loss")
        )
        lines.append(f"| {peer} | {before:.1f} | {seconds:.1f} | {speed:,.0f} | {reached:.4f} |")
    lines += ["", "One step of a cross entropy: 4,096 tokens, width 512, 64,000 pieces.", ""]
    lines += ["| logits | seconds | memory at the peak, MiB |", "|---|---|---|"]
    lines += [f"| {kind} | {found['seconds']:.2f} | {found['mebibytes']:,.0f} |" for kind, found in loss.items()]
    (RESULTS / "gpt_vs_plain.json").write_text(json.dumps(result, indent=2) + "\n")
    (RESULTS / "gpt_vs_plain.md").write_text("\n".join(lines) + "\n")
    print("\n".join(lines))


if __name__ == "__main__":
    main()
