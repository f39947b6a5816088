"""Tunewright: the whole run, with checkpoints, baselines, intervals and the report."""

import json
import sys
import tempfile
from pathlib import Path

import tunewright
from tunewright.console import silent

recipe = {
    "task": "image-classification",
    "seed": int(sys.argv[2]),
    "data": {"source": str(Path(sys.argv[1]).resolve()), "split": {"valid": 0}},
    "model": {"layers": ["flatten", {"dense": 128, "activation": "relu"}, {"dense": 10}]},
    "train": {"epochs": 5, "batch_size": 32, "optimizer": "adam"},
}
result = tunewright.run(recipe, runs=tempfile.mkdtemp(), console=silent())
summary = result.stages["pretrain"].summary
print(
    json.dumps(
        {
            "fit_seconds": summary["training"]["seconds"],
            "accuracy": summary["evaluation"]["metrics"]["accuracy"]["value"],
        }
    )
)
