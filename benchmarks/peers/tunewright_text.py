"""Tunewright: the whole run, with checkpoints, baselines, intervals and the report. ROWS BACKBONE EPOCHS SEED [frozen]"""

import json
import sys
import tempfile

import tunewright
from tunewright.console import silent

rows, backbone, epochs, seed, *options = sys.argv[1:]
split = {"valid": 0, "test": 1 / 3, "by": "group", "column": "text"}
data = {"source": "chinese-reviews", "input": "text", "limit": int(rows), "split": split}
recipe = {
    "task": "text-classification",
    "seed": int(seed),
    "data": data,
    "model": {"backbone": backbone},
    "tune": {"freeze": "backbone"} if "frozen" in options else {"freeze": "none"},
    "train": {"epochs": int(epochs)},
}
result = tunewright.run(recipe, runs=tempfile.mkdtemp(), console=silent())
summary = result.stages["finetune"].summary
training = summary["training"]
print(
    json.dumps(
        {
            "rows": summary["data"]["rows"]["train"],
            "fit_seconds": training["seconds"] + training["preparation_seconds"],
            "accuracy": summary["evaluation"]["metrics"]["accuracy"]["value"],
            "interval": [summary["evaluation"]["metrics"]["accuracy"][end] for end in ("low", "high")],
        }
    )
)
