"""Interactions of a million users with half a million items: how fast they are prepared, learned from and ranked, in how much memory.

    python benchmarks/many_interactions.py [--interactions 20_000_000] [--users 1_000_000] [--items 500_000]

Users and items of 50 kinds: nine of ten interactions are within a kind, the more popular items oftener by Zipf's law. Written as
Parquet, then an ordinary run of item-recommendation in a fresh process with a cache of its own: 32 numbers a vector, BPR, one
epoch of batches of 65,536. Memory is the peak of the process's own (`RssAnon`) and of all (`VmHWM`). Writes
benchmarks/results/many_interactions.{json,md}.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from environments import HERE, QUICK, RESULTS, processor

KINDS, BLOCK = 50, 1_000_000


def write(path: Path, interactions: int, users: int, items: int) -> None:
    draw = np.random.default_rng(0)
    each = items // KINDS
    sums = np.cumsum(1 / np.arange(1, each + 1) ** 0.8)
    schema = pa.schema([("user_id", pa.string()), ("item_id", pa.string())])
    with pq.ParquetWriter(path, schema) as writer:
        for start in range(0, interactions, BLOCK):
            count = min(BLOCK, interactions - start)
            who = draw.integers(0, users, count)
            own = draw.random(count) < 0.9
            kind = np.where(own, who % KINDS, draw.integers(0, KINDS, count))
            place = np.searchsorted(sums, draw.random(count) * sums[-1])
            what = kind * each + np.minimum(place, each - 1)
            columns = [pa.array(values).cast(pa.string()) for values in (who, what)]
            writer.write_table(pa.Table.from_arrays(columns, schema=schema))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--interactions", type=int, default=20_000 if QUICK else 20_000_000)
    parser.add_argument("--users", type=int, default=1000 if QUICK else 1_000_000)
    parser.add_argument("--items", type=int, default=500 if QUICK else 500_000)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="interactions-") as folder:
        source = Path(folder) / "interactions.parquet"
        write(source, given.interactions, given.users, given.items)
        command = [sys.executable, HERE / "peers" / "tunewright_interactions.py", source]
        done = subprocess.run(
            command, capture_output=True, text=True, env={**os.environ, "TUNEWRIGHT_CACHE": str(Path(folder) / "cache")}
        )
        if done.returncode:
            sys.exit(done.stderr[-3000:])
        found = json.loads(done.stdout.strip().splitlines()[-1])
    result = {
        "date": datetime.date.today().isoformat(),
        "processor": processor(),
        "cores": os.cpu_count(),
        **vars(given),
        **found,
    }
    lines = [
        "# Many interactions",
        "",
        f"{result['date']}, {result['processor']}, {result['cores']} cores: {given.interactions:,} interactions, "
        f"{given.users:,} users, {given.items:,} items; one epoch.",
        "",
        "| what | |",
        "|---|---|",
        f"| prepared and divided | {found['prepare_seconds']:.0f} s |",
        f"| learned from | {found['examples_per_second']:,.0f} interactions a second |",
        f"| all, with ranking | {found['seconds']:.0f} s |",
        f"| memory at the peak, the process's own | {found['own_mebibytes']:,.0f} MiB |",
        f"| with the files that are mapped into it | {found['all_mebibytes']:,.0f} MiB |",
        f"| NDCG@10 on {found['users_ranked']:,} users | {found['ndcg']:.4f} (popularity {found['popularity']:.4f}) |",
    ]
    (RESULTS / "many_interactions.json").write_text(json.dumps(result, indent=2) + "\n")
    (RESULTS / "many_interactions.md").write_text("\n".join(lines) + "\n")
    print("\n".join(lines))


if __name__ == "__main__":
    main()
