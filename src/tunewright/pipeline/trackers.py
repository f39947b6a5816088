"""Where a training's numbers are shown besides, as the recipe's `track` says: each tracker is one function, and keeps all it is told on this machine.

A tracker is given the training's name, its recipe and the folder that all runs share, and returns what is told each line of
metrics.jsonl as numbers, and what ends it. A new one is one function here and one name in `TRACKERS`.
"""

from __future__ import annotations

import hashlib
import importlib
import os
from collections.abc import Callable, Generator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from tunewright.errors import RecipeError
from tunewright.recipe.schema import Recipe

# (step, numbers by name) → None
Tell = Callable[[int, dict[str, float]], None]
PROJECT = "tunewright"


@contextmanager
def tracking(recipe: Recipe, folder: Path) -> Generator[Callable[[dict[str, Any]], None]]:
    """What is told each line of a training's metrics.jsonl.

    Args:
        folder: of the stage, below the run's.

    Raises:
        RecipeError: a tracker is not installed.
    """
    run = next((parent for parent in folder.parents if (parent / "run.json").exists()), folder.parent)
    name = folder.relative_to(run.parent).as_posix()
    with ExitStack() as stack:
        told: list[Tell] = []
        for kind in recipe.track:
            tell, end = TRACKERS[kind](name, recipe, run.parent)
            stack.callback(end)
            told.append(tell)

        def tell_all(entry: dict[str, Any]) -> None:
            if told and (numbers := numbers_of(entry)):
                for tell in told:
                    tell(entry["step"], numbers)

        yield tell_all


def numbers_of(entry: dict[str, Any]) -> dict[str, float]:
    """The numbers of a line: what belongs to a step under train/, what was measured on the validation split under valid/."""
    if entry["kind"] == "step":
        return {"train/loss": entry["loss"], "train/lr": entry["lr"]}
    if entry["kind"] != "epoch":
        return {}
    valid = {f"valid/{name}": value for name, value in (entry["valid"] or {}).items()}
    speed = {"train/examples_per_second": entry["examples_per_second"]}
    return {"epoch": entry["epoch"], "train/epoch_loss": entry["train_loss"], **speed, **valid}


def tensorboard(name: str, recipe: Recipe, runs: Path) -> tuple[Tell, Callable[[], None]]:
    """TensorBoard: `tensorboard --logdir runs/tensorboard`."""
    _require("tensorboard")
    from torch.utils.tensorboard.writer import SummaryWriter

    writer = SummaryWriter(str(runs / "tensorboard" / name))

    def tell(step: int, numbers: dict[str, float]) -> None:
        for key, value in numbers.items():
            writer.add_scalar(key, value, step)

    return tell, writer.close


def mlflow(name: str, recipe: Recipe, runs: Path) -> tuple[Tell, Callable[[], None]]:
    """MLflow: `mlflow ui --backend-store-uri sqlite:///runs/mlflow.db`."""
    client_of = _require("mlflow").tracking.MlflowClient
    client = client_of(f"sqlite:///{runs / 'mlflow.db'}")
    known = client.get_experiment_by_name(PROJECT)
    experiment = known.experiment_id if known else client.create_experiment(PROJECT, str(runs / "mlflow"))
    # A training that goes on goes on in its own run.
    before = client.search_runs([experiment], f"tags.folder = '{name}'")
    run = (before[0] if before else client.create_run(experiment, tags={"folder": name}, run_name=name)).info.run_id
    if not before:
        for key, value in _settings(recipe).items():
            client.log_param(run, key, value)

    def tell(step: int, numbers: dict[str, float]) -> None:
        for key, value in numbers.items():
            client.log_metric(run, key, value, step=step)

    return tell, lambda: client.set_terminated(run)


def trackio(name: str, recipe: Recipe, runs: Path) -> tuple[Tell, Callable[[], None]]:
    """trackio: `TRACKIO_DIR=runs/trackio trackio show`."""
    os.environ.setdefault("TRACKIO_DIR", str(runs / "trackio"))
    os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")
    library = _require("trackio")
    run = library.init(
        project=PROJECT, name=name.replace("/", "."), config=_settings(recipe), resume="allow", embed=False
    )
    return lambda step, numbers: run.log(numbers, step=step), library.finish


def wandb(name: str, recipe: Recipe, runs: Path) -> tuple[Tell, Callable[[], None]]:
    """Weights & Biases, kept on this machine (`wandb sync runs/wandb/offline-*` sends it) unless WANDB_MODE says otherwise."""
    library = _require("wandb")
    run = library.init(
        project=PROJECT,
        name=name,
        id=hashlib.sha256(str(runs.resolve() / name).encode()).hexdigest()[:16],
        resume="allow",
        mode=os.environ.get("WANDB_MODE", "offline"),
        dir=str(runs),
        config=_settings(recipe),
        # It would ask the program git about the working folder, whose configuration can start other programs.
        settings=library.Settings(silent=True, console="off", disable_git=True, disable_code=True),
    )
    return lambda step, numbers: run.log(numbers, step=step), run.finish


TRACKERS: dict[str, Callable[[str, Recipe, Path], tuple[Tell, Callable[[], None]]]] = {
    "tensorboard": tensorboard,
    "mlflow": mlflow,
    "trackio": trackio,
    "wandb": wandb,
}
# How MLflow's library is called by the smaller package that is enough here.
PACKAGES = {"mlflow": "mlflow-skinny sqlalchemy alembic"}


def _require(kind: str) -> Any:
    try:
        return importlib.import_module(kind)
    except ImportError as error:
        raise RecipeError(
            f"the tracker {kind} is not installed",
            place="track",
            found=str(error),
            fix=f"pip install {PACKAGES.get(kind, kind)}, or leave it out",
        ) from None


def _settings(recipe: Recipe) -> dict[str, Any]:
    """What was asked for, by dotted names."""
    found: dict[str, Any] = {}

    def walk(value: Any, path: str) -> None:
        if isinstance(value, dict) and value:
            for key, inner in value.items():
                walk(inner, f"{path}.{key}" if path else str(key))
        else:
            found[path] = value if isinstance(value, int | float | str) else str(value)

    walk(recipe.model_dump(mode="json", exclude_unset=True), "")
    return found
