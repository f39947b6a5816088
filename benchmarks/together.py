"""Several processes on this machine: examples a second and memory by their number, whole or divided, and runs that lose a process twenty times.

    python benchmarks/together.py [--throughput]

With --throughput the kills are not measured again. Each process has one thread. The run that is killed goes on with another number of
processes each time (4, 2 or 1), and ends with the weights of one that was never stopped, to 1e-5.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from environments import QUICK, RESULTS, processor
from safetensors.torch import load_file

KILLS = 1 if QUICK else 20
SCRIPT = """
import json, sys
from pathlib import Path
from tunewright.console import silent
from tunewright.run_recipe import run
from tunewright.pipeline.train.launch import carried_out
place = Path(sys.argv[1])
carried_out(lambda group: run(json.loads((place / "recipe.json").read_text()), base=place, runs=place / sys.argv[2], console=silent(), group=group))
"""
# 85 million parameters, and few activations: what a process holds is what it keeps of weights, gradients and AdamW's means.
LARGE: dict[str, Any] = {
    "name": "large",
    "task": "language-modeling",
    "data": {"source": "words.txt", "split": {"valid": 0, "test": 0.1}},
    "model": {
        "backbone": {"gpt": {"layers": 1 if QUICK else 12, "width": 48 if QUICK else 768, "heads": 12, "context": 64}},
        "tokenizer": "characters",
    },
    "train": {"epochs": 1, "batch_size": 4},
    "eval": {"resamples": 100},
    "hardware": {"precision": "float32"},
}
LONG: dict[str, Any] = {
    "name": "long",
    "task": "image-classification",
    "data": {"source": "digits"},
    "model": {"layers": ["flatten", {"dense": 64, "activation": "relu"}, {"dense": 10}]},
    "train": {"epochs": 6 if QUICK else 60, "batch_size": 33, "checkpoint_steps": 7},
    "eval": {"resamples": 100},
}


def started(size: int, place: Path, runs: str) -> list[subprocess.Popen[bytes]]:
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        port = held.getsockname()[1]
    told = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "OMP_NUM_THREADS": "1", "WORLD_SIZE": str(size)}
    told["MALLOC_MMAP_THRESHOLD_"] = "1000000"  # freed memory goes back at once, so that what is held can be seen
    words = [sys.executable, "-c", SCRIPT, str(place), runs]
    ranks = [{"RANK": str(rank), "LOCAL_RANK": str(rank)} for rank in range(size)]
    return [subprocess.Popen(words, env={**os.environ, **told, **rank}, stderr=subprocess.DEVNULL) for rank in ranks]


def weights(place: Path, runs: str, name: str) -> dict[str, torch.Tensor]:
    return load_file(place / runs / name / "pretrain" / "model" / "model.safetensors")


def held(process: int) -> dict[str, float]:
    """MiB that a process holds, and held at most."""
    try:
        lines = Path(f"/proc/{process}/status").read_text().splitlines()
    except OSError:
        lines = []
    found = {line.split(":")[0]: int(line.split()[1]) / 2**10 for line in lines if line.startswith("Vm")}
    return {name: found.get(name, 0.0) for name in ("VmRSS", "VmHWM")}


def throughput() -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        draw = random.Random(0)
        words = [
            "the",
            "of",
            "and",
            "with",
            "house",
            "garden",
            "river",
            "stone",
            "bread",
            "winter",
            "letter",
            "window",
            "morning",
        ]
        (place / "words.txt").write_text("\n\n".join(" ".join(draw.choices(words, k=60)) for _ in range(40)))
        for size, strategy in ((1, "ddp"), (2, "ddp"), (2, "fsdp"), (2, "tensor")):
            chosen = {"tensor": size} if strategy == "tensor" else {"strategy": strategy}
            hardware = {**LARGE["hardware"], **chosen}
            (place / "recipe.json").write_text(json.dumps({**LARGE, "hardware": hardware}))
            runs = f"by{size}{strategy}"
            processes = started(size, place, runs)
            stage = place / runs / "large" / "pretrain"
            last: list[float] = []
            peaks = [0.0, 0.0]
            # Until the model is saved: then the first process measures it, whole.
            while processes[0].poll() is None:
                if not (stage / "summary.json").exists():
                    found = [held(processes[place].pid) for place in (0, -1)]
                    peaks = [max(before, now["VmHWM"]) for before, now in zip(peaks, found)]
                    if (stage / "metrics.jsonl").exists():
                        last.append(found[-1]["VmRSS"])
                time.sleep(0.2)
            assert [process.wait() for process in processes] == [0] * size
            summary = json.loads((stage / "summary.json").read_text())
            rows.append(
                {
                    "processes": size,
                    "strategy": strategy,
                    "examples_per_second": summary["training"]["examples_per_second"],
                    "memory_mib": statistics.median(last[len(last) // 2 :]),
                    "peak_mib": {"first": peaks[0], "last": peaks[1]},
                }
            )
            print(rows[-1], flush=True)
    return rows


def killed(strategy: str) -> dict[str, Any]:
    draw = random.Random(0)
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        (place / "recipe.json").write_text(json.dumps({**LONG, "hardware": {"strategy": strategy}}))
        for process in started(1, place, "alone"):
            process.wait()
        kills = 0
        while kills < KILLS:
            processes = started(draw.choice([2, 4]), place, "killed")
            checkpoints = place / "killed" / "long" / "pretrain" / "checkpoints"
            before = {path.name for path in checkpoints.glob("step-*")}
            until = time.monotonic() + 60
            while {path.name for path in checkpoints.glob("step-*")} <= before and time.monotonic() < until:
                time.sleep(0.01)
            time.sleep(draw.uniform(0, 0.05))
            draw.choice(processes).kill()
            kills += 1
            time.sleep(0.5)
            for process in processes:
                process.kill()
                process.wait()
            if (place / "killed" / "long" / "pretrain" / "summary.json").exists():
                break
        for process in started(2, place, "killed"):
            process.wait()
        alone, after = weights(place, "alone", "long"), weights(place, "killed", "long")
        damaged = len(list((place / "killed" / "long" / "pretrain" / "checkpoints").glob("damaged-*")))
        away = max(float((alone[name] - after[name]).abs().max()) for name in alone)
        shutil.rmtree(place / "killed")
    return {"strategy": strategy, "kills": kills, "damaged_checkpoints": damaged, "largest_difference": away}


def main() -> None:
    place = RESULTS / "together.json"
    found = json.loads(place.read_text()) if sys.argv[1:] == ["--throughput"] else {}
    if not found:
        found = {"machine": processor(), "kills": [killed("ddp"), killed("fsdp")]}
    found["throughput"] = throughput()
    place.write_text(json.dumps(found, indent=1) + "\n")
    print(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
