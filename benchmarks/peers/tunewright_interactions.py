"""Tunewright: learn from many interactions, and watch the memory meanwhile. SOURCE"""

import json
import sys
import tempfile
import threading
import time
from pathlib import Path

import tunewright
from tunewright.console import silent
from tunewright.data.prepare.prepare import prepare
from tunewright.recipe.schema import Data

peaks = {"RssAnon": 0, "VmRSS": 0}


def watch() -> None:
    while True:
        for line in Path("/proc/self/status").read_text().splitlines():
            name, _, value = line.partition(":")
            if name in peaks:
                peaks[name] = max(peaks[name], int(value.split()[0]))
        time.sleep(0.05)


threading.Thread(target=watch, daemon=True).start()
data = {"source": sys.argv[1], "labelled": False, "split": {"by": "within", "valid": 0.05, "test": 0.05}}
began = time.perf_counter()
prepare(Data.model_validate(data), seed=0, target_kind=None, base=Path())
prepared = time.perf_counter()
recipe = {
    "task": "item-recommendation",
    "data": data,
    "model": {"backbone": {"factors": {"width": 32}}},
    "train": {"epochs": 1, "batch_size": 65_536, "lr": 1e-2},
    "eval": {"resamples": 100},
}
done = tunewright.run(recipe, runs=tempfile.mkdtemp(), console=silent()).stages["pretrain"].summary
evaluation = done["evaluation"]
print(
    json.dumps(
        {
            "prepare_seconds": prepared - began,
            "seconds": time.perf_counter() - prepared,
            "examples_per_second": done["training"]["examples_per_second"],
            "own_mebibytes": peaks["RssAnon"] / 1024,
            "all_mebibytes": peaks["VmRSS"] / 1024,
            "users_ranked": evaluation["rows"],
            "ndcg": evaluation["metrics"]["ndcg_at_10"]["value"],
            "popularity": evaluation["baselines"][0]["metrics"]["ndcg_at_10"]["value"],
        }
    )
)
