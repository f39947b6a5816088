"""kill -9 at any moment, then the same command: it goes on, and ends with the same weights, bit for bit.

Each training runs in a process that is forked from this one, so a kill costs milliseconds and not the import of torch.
"""

from __future__ import annotations

import os
import random
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

import tunewright
from tunewright.console import silent
from tunewright.files import sha256_file
from tunewright.run_recipe import run

RECIPE = {
    "name": "killed",
    "task": "image-classification",
    "data": {"source": "digits", "split": {"valid": 0.1, "test": 0.1}},
    "model": {
        "layers": [
            {"conv2d": 4, "kernel": 3},
            "batch_norm",
            "relu",
            "flatten",
            {"dense": 16, "activation": "relu"},
            {"dropout": 0.2},
            {"dense": "auto"},
        ]
    },
    "train": {
        "epochs": 4,
        "batch_size": 32,
        "accumulate": 2,
        "optimizer": "adamw",
        "schedule": "cosine",
        "regularization": {"weight_decay": 0.01},
        "checkpoint_steps": 3,
    },
    "eval": {"resamples": 100},
    "hardware": {"threads": 1},
}


def start(runs: Path, before: Callable[[], None] = lambda: None) -> int:
    """Run the recipe in a forked process; returns its process id."""
    child = os.fork()
    if child:
        return child
    code = 1
    try:
        before()
        run(RECIPE, runs=runs, console=silent())
        code = 0
    finally:
        os._exit(code)


def finish(child: int) -> int:
    """How a process ended: its exit code, or minus the signal."""
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def result(runs: Path) -> str:
    return sha256_file(runs / "killed" / "pretrain" / "model" / "model.safetensors")


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, float]:
    """The weights of a run that nobody killed, and how long it took."""
    torch.set_num_threads(1)
    runs = tmp_path_factory.mktemp("undisturbed")
    finish(start(runs))  # the data is prepared and everything imported lazily is known to work
    again = tmp_path_factory.mktemp("timed")
    began = time.monotonic()
    assert finish(start(again)) == 0
    assert result(again) == result(runs)
    return result(runs), time.monotonic() - began


def kill_until_done(runs: Path, kills: int, seconds: float, seed: int) -> int:
    """Kill at random moments, `kills` times at most, then let it finish; returns how many kills struck."""
    moments = random.Random(seed)
    struck = 0
    for _ in range(kills):
        child = start(runs)
        time.sleep(moments.uniform(0, seconds))
        os.kill(child, signal.SIGKILL)
        if finish(child) == 0:
            return struck
        struck += 1
    assert finish(start(runs)) == 0
    return struck


@pytest.mark.parametrize("seed", range(3))
def test_killed_at_random_moments(tmp_path: Path, undisturbed: tuple[str, float], seed: int) -> None:
    expected, seconds = undisturbed
    struck = 0
    for attempt in range(10):  # on a busy machine the first kill may come too late: then sooner
        runs = tmp_path / str(attempt)
        struck += kill_until_done(runs, kills=4, seconds=seconds / 2 ** (attempt + 1), seed=seed)
        assert result(runs) == expected
        if struck:
            return
    pytest.fail("no kill struck")


def kill_at_call(module: object, name: str, number: int) -> Callable[[], None]:
    """Makes the process kill itself inside the so-many-th call of a function."""

    def arrange() -> None:
        real, calls = getattr(module, name), iter(range(1, sys.maxsize))

        def deadly(*arguments: object, **keywords: object) -> object:
            if next(calls) == number:
                os.kill(os.getpid(), signal.SIGKILL)
            return real(*arguments, **keywords)

        setattr(module, name, deadly)

    return arrange


@pytest.mark.parametrize(
    ("name", "number"), [("fsync", 9), ("fsync", 14), ("replace", 8), ("replace", 11), ("replace", 15)]
)
def test_killed_inside_a_save(tmp_path: Path, undisturbed: tuple[str, float], name: str, number: int) -> None:
    assert finish(start(tmp_path, kill_at_call(os, name, number))) == -signal.SIGKILL
    assert finish(start(tmp_path)) == 0
    assert result(tmp_path) == undisturbed[0]


@pytest.mark.slow
def test_a_hundred_kills(tmp_path: Path, undisturbed: tuple[str, float]) -> None:
    expected, seconds = undisturbed
    struck = 0
    for attempt in range(1000):
        runs = tmp_path / str(attempt)
        struck += kill_until_done(runs, kills=6, seconds=seconds / 2, seed=100 + attempt)
        assert result(runs) == expected
        if struck >= 100:
            return
    pytest.fail("no hundred kills struck")


def test_sigterm_writes_a_checkpoint_and_leaves(tmp_path: Path, undisturbed: tuple[str, float]) -> None:
    child = start(tmp_path)
    checkpoints = tmp_path / "killed" / "pretrain" / "checkpoints"
    while not list(checkpoints.glob("step-*")):
        time.sleep(0.005)
    os.kill(child, signal.SIGTERM)
    assert finish(child) == 1  # the forked process ends with 1 for any error; the message is tested by the command line
    assert not (tmp_path / "killed" / "pretrain" / "summary.json").exists()
    assert finish(start(tmp_path)) == 0
    assert result(tmp_path) == undisturbed[0]


def test_a_finished_run_is_never_touched(tmp_path: Path, undisturbed: tuple[str, float]) -> None:
    assert finish(start(tmp_path)) == 0
    before = {path: sha256_file(path) for path in (tmp_path / "killed").rglob("*") if path.is_file()}
    assert finish(start(tmp_path)) == 0
    assert {path: sha256_file(path) for path in before} == before
    assert (tmp_path / "killed-2" / "report.html").exists()
    assert tunewright.run is not None
