"""The page of runs with 500 runs of 10,000 points each: seconds until the list is there, the first time and again, and for one run's curves.

python benchmarks/ui_many_runs.py
"""

from __future__ import annotations

import json
import tempfile
import time
from pathlib import Path

from environments import QUICK, RESULTS, processor
from fastapi.testclient import TestClient

from tunewright import run
from tunewright.console import silent
from tunewright.serving.runs_app import make_ui

RUNS, LINES = (10, 100) if QUICK else (500, 10_000)


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder) / "runs"
        recipe = {"name": "one", "task": "image-classification", "data": {"source": "digits"}, "train": {"epochs": 2}}
        made = run(recipe, runs=place, console=silent())
        steps = [
            {"kind": "step", "step": step, "epoch": 1, "loss": 1 / step, "lr": 0.1} for step in range(1, LINES + 1)
        ]
        metrics = "\n".join(map(json.dumps, steps)) + "\n"
        summary, record = (
            (made.folder / "pretrain" / "summary.json").read_text(),
            (made.folder / "run.json").read_text(),
        )
        for number in range(RUNS):
            stage = place / f"run{number:03d}" / "pretrain"
            stage.mkdir(parents=True)
            (stage.parent / "run.json").write_text(record)
            (stage / "summary.json").write_text(summary)
            (stage / "metrics.jsonl").write_text(metrics)
        with TestClient(make_ui(place), base_url="http://127.0.0.1") as client:
            seconds = {}
            for name, path in (
                ("first", "/api/runs"),
                ("again", "/api/runs"),
                ("one run's curves", "/api/runs/run007"),
            ):
                began = time.perf_counter()
                client.get("/")
                answer = client.get(path)
                seconds[name] = time.perf_counter() - began
                assert answer.status_code == 200
    found = {"machine": processor(), "runs": RUNS, "points": LINES, "seconds": seconds}
    (RESULTS / "ui_many_runs.json").write_text(json.dumps(found, indent=1) + "\n")
    print(found)


if __name__ == "__main__":
    main()
