"""Prepare 5 million generated CSV rows in a fresh process: rows a second, and the peak of its memory.

    python benchmarks/prepare_rows.py [ROWS]

Writes benchmarks/results/prepare_rows.json.
"""

from __future__ import annotations

import json
import os
import platform
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from environments import QUICK, RESULTS
from pyarrow import csv

NAMES = [*(f"n{index}" for index in range(6)), "c0", "c1", "id", "label"]
SCHEMA = pa.schema([(name, pa.string()) for name in NAMES])
RESULT = RESULTS / "prepare_rows.json"


def generate(path: Path, rows: int) -> None:
    """Ten columns: six numbers, two categories, an id, a label; a few cells and targets are bad on purpose."""
    random = np.random.default_rng(0)
    block = 250_000
    with csv.CSVWriter(path, SCHEMA) as writer:
        for start in range(0, rows, block):
            count = min(block, rows - start)
            columns = [pa.array(np.round(random.normal(size=count), 4)).cast(pa.string()) for _ in range(6)]
            for values in (random.integers(0, 12, count), random.integers(0, 40, count)):
                columns.append(pa.array(values).cast(pa.string()))
            columns[6] = pc.binary_join_element_wise("kind", columns[6], "-")
            columns.append(
                pc.binary_join_element_wise("row", pa.array(np.arange(start, start + count)).cast(pa.string()), "-")
            )
            labels = np.where(random.random(count) < 0.001, "", random.choice(["yes", "no"], count))
            columns.append(pa.array(labels))
            writer.write_table(pa.table(columns, schema=SCHEMA))


def measure(path: Path) -> dict[str, object]:
    """In this process: prepare the file, and what it took."""
    from tunewright.data.prepare.prepare import prepare
    from tunewright.recipe.schema import Data

    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    start = time.perf_counter()
    prepared = prepare(Data(source=str(path), target="label"), seed=0, target_kind="category", base=Path("."))
    seconds = time.perf_counter() - start
    manifest = prepared.manifest
    return {
        "rows_read": manifest.read,
        "rows_used": manifest.used,
        "left_out": [f"{entry.count}: {entry.reason}" for entry in manifest.skipped],
        "csv_megabytes": round(path.stat().st_size / 1e6),
        "parquet_megabytes": round(sum(part["bytes"] for part in manifest.splits.values()) / 1e6),
        "seconds": round(seconds, 2),
        "rows_per_second": round(manifest.read / seconds),
        "peak_megabytes": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024),
        "megabytes_before": round(before / 1024),
        "python": platform.python_version(),
        "cores": os.cpu_count(),
    }


def main() -> None:
    if sys.argv[1:2] == ["--measure"]:
        print(json.dumps(measure(Path(sys.argv[2]))))
        return
    rows = int(sys.argv[1]) if len(sys.argv) > 1 else 10_000 if QUICK else 5_000_000
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "rows.csv"
        generate(path, rows)
        environment = {**os.environ, "TUNEWRIGHT_CACHE": str(Path(folder) / "cache")}
        done = subprocess.run(
            [sys.executable, __file__, "--measure", str(path)], env=environment, capture_output=True, text=True
        )
    if done.returncode:
        sys.exit(done.stderr)
    result = json.loads(done.stdout)
    RESULT.write_text(json.dumps(result, indent=2) + "\n")
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
