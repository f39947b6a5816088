"""Starts several training processes as torchrun would, and reads the weights that they save."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

import torch
from safetensors.torch import load_file

FOLLOWED = """
import json, sys
from pathlib import Path
from tunewright.models.core.meta_weights import is_meta
from tunewright.pipeline.strategies import sharded as sharing
from tunewright.pipeline.train import progress as training
from tunewright.pipeline.strategies import validation
from tunewright.console import silent
from tunewright.run_recipe import run
from tunewright.pipeline.train.launch import carried_out
from tunewright.training.distributed import sharded_files as part_files

place = Path(sys.argv[1])
validation.EVALUATION_BATCH = 8  # so that there are batches to divide
if "beside" in sys.argv[3:]:
    saver = training.Saver
    training.Saver = lambda root, *, beside, together: saver(root, beside=True, together=together)
if "parts" in sys.argv[3:]:
    shard, part_files.FILE = sharing.shard, 40_000  # bytes: so that there are several files
    def watched(network, team, **options):  # it is whole in no process
        assert options["fill"] is not None
        assert all(is_meta(value) or "lora" in name for name, value in network.named_parameters())
        return shard(network, team, **options)
    sharing.shard = watched
carried_out(lambda group: [run(recipe, base=place, runs=place / sys.argv[2], console=silent(), group=group) for recipe in json.loads((place / "recipes.json").read_text())])
"""


def started(size: int, *words: str) -> list[subprocess.Popen[bytes]]:
    """Processes as torchrun would start them."""
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        port = held.getsockname()[1]
    told = {"WORLD_SIZE": size, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "OMP_NUM_THREADS": 1}
    environment = {**os.environ, **{key: str(value) for key, value in told.items()}}
    return [
        subprocess.Popen([sys.executable, *words], env={**environment, "RANK": str(rank), "LOCAL_RANK": str(rank)})
        for rank in range(size)
    ]


def weights(place: Path, runs: str, name: str, stage: str) -> dict[str, torch.Tensor]:
    files = sorted((place / runs / name / stage / "model").glob("*.safetensors"))
    return {key: value for file in files for key, value in load_file(file).items()}
