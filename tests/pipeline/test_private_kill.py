"""A private stage that is killed after its last step: it ends with the same weights and the same ε, and its secret is deleted."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from tunewright import run_recipe as carrying_out
from tunewright.console import silent
from tunewright.files import sha256_file
from tunewright.pipeline.strategies import private, single
from tunewright.pipeline.train import finish_stage as ending
from tunewright.run_recipe import run
from tunewright.runs.folder import read_json

RECIPE: dict[str, Any] = {
    "name": "killed",
    "task": "tabular-classification",
    "data": {"source": "rows.csv", "target": "y", "split": {"valid": 0.2, "test": 0.2}},
    "model": {"layers": [{"dense": 2}]},
    "train": {"epochs": 3, "batch_size": 20, "optimizer": "sgd", "lr": 0.5},
    "privacy": {"epsilon": 5},
    "eval": {"resamples": 100},
    "hardware": {"threads": 1},
}

# (module, function): the process dies when it is called; each is one moment after the last step.
MOMENTS = {
    "before the best weights": (single, "load_best"),
    "before the model": (ending, "save_model"),
    "before the certificate": (ending, "show_certificate"),
    "before the summary": (ending, "write_summary"),
    "before the secret is deleted": (carrying_out, "forget_key"),
    "before the evaluation": (carrying_out, "evaluate_stage"),
    "before the report": (carrying_out, "write_report"),
}


def write_rows(folder: Path) -> None:
    rows = [f"{n % 7},{n % 3},{'yes' if n % 7 > 3 else 'no'}" for n in range(120)]
    (folder / "rows.csv").write_text("\n".join(["a,b,y", *rows]))


def in_a_fork(work: Callable[[], object]) -> int:
    """How a forked process ends that does the work: its exit code, or minus the signal."""
    child = os.fork()
    if child == 0:
        code = 1
        try:
            work()
            code = 0
        finally:
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def dies_at(module: Any, name: str) -> None:
    def deadly(*arguments: object, **keywords: object) -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    setattr(module, name, deadly)


def stage_of(base: Path) -> Path:
    return base / "runs" / "killed" / "pretrain"


def with_one_secret(base: Path) -> None:
    run(RECIPE, base=base, runs=base / "runs", console=silent())


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The weights and the account of a run that nobody killed."""
    torch.set_num_threads(1)
    base = tmp_path_factory.mktemp("undisturbed")
    write_rows(base)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("tunewright.pipeline.strategies.private.secrets.randbits", lambda bits: 1234567)
        with_one_secret(base)
    return ended(base)


def ended(base: Path) -> dict[str, Any]:
    folder = stage_of(base)
    summary = read_json(folder / "summary.json", "a summary")
    return {
        "weights": sha256_file(folder / "model" / "model.safetensors"),
        "account": summary["training"]["privacy"],
        "promise": summary["privacy"],
        "book": read_json(folder / "privacy.json", "the book"),
    }


@pytest.mark.parametrize("moment", MOMENTS)
def test_killed_between_the_last_step_and_the_end(
    moment: str, tmp_path: Path, undisturbed: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tunewright.pipeline.strategies.private.secrets.randbits", lambda bits: 1234567)
    write_rows(tmp_path)

    def killed() -> None:
        dies_at(*MOMENTS[moment])
        with_one_secret(tmp_path)

    assert in_a_fork(killed) == -signal.SIGKILL
    folder = stage_of(tmp_path)
    # Whatever was released by then is in the book.
    assert read_json(folder / "privacy.json", "the book") == undisturbed["book"]
    assert (folder / "privacy.key").exists() or (folder / "summary.json").exists()
    # No other secret may be made for what was begun with the first one.
    monkeypatch.setattr("tunewright.pipeline.strategies.private.secrets.randbits", lambda bits: 7654321)
    assert in_a_fork(lambda: with_one_secret(tmp_path)) == 0
    assert ended(tmp_path) == undisturbed
    assert not list(folder.glob("*privacy.key*"))
    assert "evaluation" in read_json(folder / "summary.json", "a summary")


def test_the_secret_is_whole_or_absent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Killed while the secret is written: the stage begins anew, and ends."""
    write_rows(tmp_path)
    monkeypatch.setattr("tunewright.pipeline.strategies.private.secrets.randbits", lambda bits: 1234567)

    def killed() -> None:
        own = SimpleNamespace(**vars(os))  # its own, so that no other file's writing is struck
        dies_at(own, "fsync")
        monkeypatch.setattr(private, "os", own)
        with_one_secret(tmp_path)

    assert in_a_fork(killed) == -signal.SIGKILL
    assert stage_of(tmp_path).exists() and not (stage_of(tmp_path) / "privacy.key").exists()
    assert in_a_fork(lambda: with_one_secret(tmp_path)) == 0
    assert not list(stage_of(tmp_path).glob("*privacy.key*"))
    assert json.loads((stage_of(tmp_path) / "privacy.json").read_text())["steps"] > 0
