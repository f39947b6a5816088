"""Run a recipe on a Ray cluster: python examples/cluster/ray_train.py RECIPE WORKERS [--gpu]

Ray Train starts the processes and sets their ranks; each runs the recipe as one of them. The recipe, its data and runs/ are on a
shared disk. With `max_failures` Ray restarts all of them if one is lost, and the run resumes from its newest checkpoint.
"""

import sys
from pathlib import Path
from typing import Any

from ray.train import FailureConfig, RunConfig, ScalingConfig
from ray.train.torch import TorchTrainer


def work(settings: dict[str, Any]) -> None:
    from tunewright.pipeline.train.launch import carried_out
    from tunewright.run_recipe import run

    place = Path(settings["recipe"])
    carried_out(lambda group: run(place, runs=place.parent / "runs", group=group))


if __name__ == "__main__":
    recipe, workers = Path(sys.argv[1]).resolve(), int(sys.argv[2])
    TorchTrainer(
        work,
        train_loop_config={"recipe": str(recipe)},
        scaling_config=ScalingConfig(num_workers=workers, use_gpu="--gpu" in sys.argv),
        run_config=RunConfig(storage_path=str(recipe.parent / "ray"), failure_config=FailureConfig(max_failures=3)),
    ).fit()
