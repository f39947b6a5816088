"""Ctrl-C and SIGTERM in any phase of a command: a sentence, exit code 130, and the same command goes on."""

from __future__ import annotations

import json
import os
import shutil
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from killed_runs import exit_code, record_calls, run_content, watch_calls
from stage_kinds import PICTURES, two_stages
from tunewright import cli

SIGNALS = [signal.SIGTERM, signal.SIGINT]


class Command:
    """A command in a forked process, with what it says in a file."""

    def __init__(self, place: Path, *words: str) -> None:
        self.place, self.words = place, words

    @property
    def said(self) -> str:
        return (self.place / "said.txt").read_text()

    def start(self, before: Callable[[], None] = lambda: None) -> int:
        if child := os.fork():
            return child
        code = 70
        try:
            os.chdir(self.place)
            said = os.open("said.txt", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
            os.dup2(said, 1)
            os.dup2(said, 2)
            sys.stdout, sys.stderr = os.fdopen(1, "w", closefd=False), os.fdopen(2, "w", closefd=False)
            sys.argv = ["tunewright", *self.words]
            signal.signal(signal.SIGINT, signal.default_int_handler)
            before()
            cli.main()
            code = 0
        except SystemExit as leave:
            code = leave.code if isinstance(leave.code, int) else 71
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(code)


def signalled(number: int, which: signal.Signals) -> Callable[[], None]:
    """Sends the process a signal at the so-many-th call that changes what is on the disk."""

    def send(at: int, call: str) -> None:
        if at == number:
            os.kill(os.getpid(), which)

    return lambda: watch_calls(send)


def outcome(place: Path) -> dict[str, Any]:
    """What a run leaves, without what was measured for its plan, and without checkpoints: a stop writes one more."""
    found = run_content(place / "runs" / "stopped")
    del found["plan.json"], found["report.html"]
    return {name: value for name, value in found.items() if "/checkpoints/" not in name}


@pytest.fixture(scope="module")
def stopped(tmp_path_factory: pytest.TempPathFactory) -> tuple[Command, dict[str, Any], list[str]]:
    """A run of two stages, how it ends when nobody stops it, and what it changes on the disk."""
    torch.set_num_threads(1)
    place = tmp_path_factory.mktemp("stopped")
    (place / "recipe.yaml").write_text(json.dumps({**two_stages(place), "name": "stopped"}))
    command = Command(place, "run", "recipe.yaml")
    assert exit_code(command.start()) == 0, command.said  # the machine is measured, the data prepared
    shutil.rmtree(place / "runs")
    assert exit_code(command.start(record_calls(place / "calls.txt"))) == 0, command.said
    return command, outcome(place), (place / "calls.txt").read_text().splitlines()


def stop_at(stopped: tuple[Command, dict[str, Any], list[str]], numbers: list[int], which: signal.Signals) -> None:
    command, expected, calls = stopped
    for number in numbers:
        shutil.rmtree(command.place / "runs", ignore_errors=True)
        code = exit_code(command.start(signalled(number, which)))
        assert code == 130, f"{code} at {calls[number - 1]}: {command.said}"
        assert "stopped" in command.said and "run the same command again" in command.said
        assert "Traceback" not in command.said
        assert exit_code(command.start()) == 0, command.said
        found = outcome(command.place)
        assert sorted(found) == sorted(expected)
        assert {name: value for name, value in found.items() if value != expected[name]} == {}


def places(calls: list[str], count: int) -> list[int]:
    """Where to stop: in the middle of the training, and from the last step to the end."""
    saves = [index for index, call in enumerate(calls, 1) if call.startswith("replace step-")]
    after = np.linspace(saves[-1], len(calls) - 8, count - 1).round().astype(int).tolist()
    return [saves[len(saves) // 2], *after]


@pytest.mark.parametrize("which", SIGNALS)
def test_stopped_in_any_phase(stopped: Any, which: signal.Signals) -> None:
    stop_at(stopped, places(stopped[2], 2), which)


@pytest.mark.slow
@pytest.mark.parametrize("which", SIGNALS)
def test_stopped_at_many_places(stopped: Any, which: signal.Signals) -> None:
    stop_at(stopped, [*np.linspace(2, 30, 6).astype(int).tolist(), *places(stopped[2], 14)], which)


@pytest.mark.parametrize("which", SIGNALS)
def test_stopped_while_data_is_prepared(tmp_path: Path, own_cache: Path, which: signal.Signals) -> None:
    (tmp_path / "recipe.yaml").write_text(json.dumps(PICTURES))
    command = Command(tmp_path, "data", "check", "recipe.yaml")
    assert exit_code(command.start(signalled(2, which))) == 130
    assert "stopped" in command.said and "Traceback" not in command.said
    assert not list(own_cache.rglob("*.parquet"))  # nothing is left half written
    assert exit_code(command.start()) == 0, command.said


@pytest.mark.parametrize("which", SIGNALS)
def test_stopped_while_exporting(stopped: Any, which: signal.Signals) -> None:
    command, _, _ = stopped
    if not (command.place / "runs").exists():
        assert exit_code(command.start()) == 0
    model = command.place / "runs" / "stopped" / "pretrain" / "model"
    out = command.place / which.name
    export = Command(command.place, "export", str(model), "--to", "torch", "--out", str(out))
    assert exit_code(export.start(signalled(2, which))) == 130 and "stopped" in export.said
    assert list(out.iterdir()) == []
    assert exit_code(export.start()) == 0, export.said


def test_a_killed_export_is_made_again(stopped: Any) -> None:
    command, _, _ = stopped
    if not (command.place / "runs").exists():
        assert exit_code(command.start()) == 0
    model = command.place / "runs" / "stopped" / "pretrain" / "model"
    out = command.place / "killed"
    export = Command(command.place, "export", str(model), "--to", "torch", "--out", str(out))

    def strike(at: int, call: str) -> None:
        if call.startswith("replace model"):
            os.kill(os.getpid(), signal.SIGKILL)

    assert exit_code(export.start(lambda: watch_calls(strike))) == -signal.SIGKILL
    assert (out / "torch.export.json").exists()
    assert exit_code(export.start()) == 0, export.said
    assert exit_code(export.start()) == 2 and "already exists" in export.said


def test_measuring_again_loses_nothing(stopped: Any) -> None:
    command, _, _ = stopped
    if not (command.place / "runs").exists():
        assert exit_code(command.start()) == 0
    before = outcome(command.place)
    again = Command(command.place, "evaluate", "runs/stopped", "eval.resamples=100")
    assert exit_code(again.start(record_calls(command.place / "measured.txt"))) == 0, again.said
    count = len((command.place / "measured.txt").read_text().splitlines())
    for number in np.linspace(2, count, 4).astype(int).tolist():
        assert exit_code(again.start(signalled(number, signal.SIGTERM))) == 130
        for stage in ("pretrain", "finetune"):
            summary = json.loads((command.place / "runs" / "stopped" / stage / "summary.json").read_text())
            assert summary["evaluation"]["metrics"]
    assert exit_code(again.start()) == 0, again.said
    assert outcome(command.place) == before
