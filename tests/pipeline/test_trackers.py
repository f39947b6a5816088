"""Each tracker has what metrics.jsonl has, also after a stop; one that is missing is said before anything is trained."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import pytest

from tunewright.console import silent
from tunewright.errors import RecipeError
from tunewright.pipeline.trackers import numbers_of
from tunewright.run_recipe import run
from tunewright.runs.metrics_log import read_metrics

RECIPE: dict[str, Any] = {
    "name": "tracked",
    "task": "image-classification",
    "data": {"source": "digits", "limit": 300},
    "model": {"layers": ["flatten", {"dense": 10}]},
    "train": {"epochs": 3, "batch_size": 64},
    "eval": {"resamples": 100},
}


def trained(tmp_path: Path, kind: str) -> list[tuple[int, str, float]]:
    """Runs the recipe with a tracker; what metrics.jsonl then says."""
    run({**RECIPE, "track": [kind]}, runs=tmp_path, console=silent())
    lines = read_metrics(tmp_path / "tracked" / "pretrain" / "metrics.jsonl")
    return [(line["step"], key, value) for line in lines for key, value in numbers_of(line).items()]


def test_tensorboard_has_every_number(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    expected = trained(tmp_path, "tensorboard")
    found = EventAccumulator(str(tmp_path / "tensorboard" / "tracked" / "pretrain"))
    found.Reload()
    told = [(event.step, key, event.value) for key in found.Tags()["scalars"] for event in found.Scalars(key)]
    assert {entry[:2] for entry in expected} == {entry[:2] for entry in told}
    values = {entry[:2]: entry[2] for entry in told}
    assert all(values[step, key] == pytest.approx(value, rel=1e-5) for step, key, value in expected)


@pytest.mark.filterwarnings("ignore")
def test_mlflow_has_every_number_and_the_settings(tmp_path: Path) -> None:
    mlflow = pytest.importorskip("mlflow")
    expected = trained(tmp_path, "mlflow")
    client = mlflow.tracking.MlflowClient(f"sqlite:///{tmp_path / 'mlflow.db'}")
    (found,) = client.search_runs([client.get_experiment_by_name("tunewright").experiment_id])
    assert found.data.params["train.batch_size"] == "64" and found.info.status == "FINISHED"
    for step, key, value in expected:
        assert any(
            entry.step == step and entry.value == value for entry in client.get_metric_history(found.info.run_id, key)
        )


@pytest.mark.filterwarnings("ignore")
def test_trackio_has_every_number(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("trackio")
    monkeypatch.setenv("TRACKIO_DIR", str(tmp_path / "trackio"))
    expected = trained(tmp_path, "trackio")
    from trackio.sqlite_storage import SQLiteStorage

    logs = SQLiteStorage.get_logs("tunewright", "tracked.pretrain")
    told = {(entry["step"], key): value for entry in logs for key, value in entry.items()}
    assert all(told[step, key] == pytest.approx(value) for step, key, value in expected)


@pytest.mark.filterwarnings("ignore")
def test_wandb_stays_on_this_machine(tmp_path: Path) -> None:
    pytest.importorskip("wandb")
    expected = trained(tmp_path, "wandb")
    (folder,) = (tmp_path / "wandb").glob("offline-run-*")
    assert expected and any(file.stat().st_size > 1000 for file in folder.glob("*.wandb"))


def test_wandb_does_not_ask_git(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("wandb")
    (tmp_path / "tools").mkdir()
    (tmp_path / "tools" / "git").write_text(f"#!/bin/sh\necho $@ >> '{tmp_path / 'asked'}'\n")
    (tmp_path / "tools" / "git").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path / "tools"), prepend=os.pathsep)
    assert trained(tmp_path, "wandb")
    assert not (tmp_path / "asked").exists()


def test_a_missing_tracker_is_said_before_anything_is_trained(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "wandb", None)
    with pytest.raises(RecipeError, match="the tracker wandb is not installed"):
        run({**RECIPE, "track": ["wandb"]}, runs=tmp_path, console=silent())
    assert not list(tmp_path.rglob("checkpoints"))
    with pytest.raises(RecipeError, match="track"):
        run({**RECIPE, "track": ["elsewhere"]}, runs=tmp_path, console=silent())
