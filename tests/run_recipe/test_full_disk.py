"""A disk that is full, or files that may not grow, at any write of a run: a sentence, and the same command goes on later."""

from __future__ import annotations

import errno
import os
import resource
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from killed_runs import StageKind, exit_code, watch_calls
from stage_kinds import CHEAP, KINDS
from tunewright.console import silent
from tunewright.errors import ArtifactError, RunFailed
from tunewright.files import require_writable, resumable, system_error
from tunewright.pipeline.session.disk_space import require_room
from tunewright.run_recipe import run
from tunewright.training.optimizers.registry import build_optimizer, state_bytes, state_tensors


def full_from(number: int) -> Callable[[], None]:
    """From the so-many-th call on, every call that changes the disk is refused, but for deletions."""

    def refuse(at: int, call: str) -> None:
        if at >= number and not call.startswith(("unlink", "rmdir")):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), call.partition(" ")[2])

    return lambda: watch_calls(refuse)


def no_larger_than(size: int) -> Callable[[], None]:
    """No file may grow beyond so many bytes: the system refuses the write itself, whoever writes."""
    return lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))


def refused(kind: StageKind, before: Callable[[], None]) -> None:
    """The run ends with a sentence that says what to do; then it goes on to the same result."""
    kind.start_anew()
    (kind.place / "error.txt").unlink(missing_ok=True)
    assert exit_code(kind.start(before)) == 1
    said = (kind.place / "error.txt").read_text()
    assert "errors.RunFailed: " in said or "errors.ArtifactError: " in said, said
    assert "free disk space" in said, said
    kind.finish()


def refuse_at(kind: StageKind, times: int) -> None:
    for number in np.linspace(1, len(kind.calls), times).round().astype(int).tolist():
        refused(kind, full_from(number))


@pytest.mark.parametrize("make", CHEAP)
def test_full_at_any_write(kinds: Any, make: Callable[[Path], dict[str, Any]]) -> None:
    refuse_at(kinds(make), 3)


@pytest.mark.parametrize("size", [10, 3000, 12000])
def test_a_file_may_not_grow(kinds: Any, size: int) -> None:
    refused(kinds(CHEAP[0]), no_larger_than(size))


@pytest.mark.parametrize("number", range(1, 13, 2))
def test_full_while_data_is_prepared(kinds: Any, own_cache: Path, number: int) -> None:
    refused(kinds(CHEAP[0]), full_from(number))


@pytest.mark.slow
@pytest.mark.parametrize("make", KINDS)
def test_full_at_many_writes(kinds: Any, make: Callable[[Path], dict[str, Any]]) -> None:
    refuse_at(kinds(make), 12)


@pytest.mark.slow
@pytest.mark.parametrize("make", KINDS)
def test_no_file_may_grow(kinds: Any, make: Callable[[Path], dict[str, Any]]) -> None:
    sizes = [path.stat().st_size for path in kinds(make).folder.rglob("*") if path.is_file()]
    kind = kinds(make)
    for size in np.quantile(sizes or [100, 1000, 10_000], [0.0, 0.3, 0.6, 0.9]).astype(int).tolist():
        refused(kind, no_larger_than(max(1, size - 1)))


def test_what_libraries_say_without_a_number() -> None:
    assert system_error(ValueError("Error while serializing: I/O error: No space left on device (os error 28)")) == (
        28,
        "No space left on device",
    )
    assert system_error(ValueError("os error")) is None and system_error(OSError("no number")) is None
    with pytest.raises(RunFailed, match="No space left on device") as caught, resumable(Path("there")):
        raise Exception("No space left on device (os error 28)")  # as tokenizers does
    assert "free disk space" in (caught.value.fix or "")


def test_a_folder_that_cannot_be_written_is_refused_before_anything_is_read(tmp_path: Path) -> None:
    (tmp_path / "runs").write_text("a file")
    with pytest.raises(ArtifactError, match="cannot be written"):
        run({"task": "image-classification", "data": {"source": "nowhere"}}, runs=tmp_path / "runs", console=silent())
    require_writable(tmp_path / "new" / "folder")
    assert [path.name for path in tmp_path.iterdir()] == ["runs"]


@pytest.mark.skipif(os.getuid() != 0, reason="to become another user")
def test_another_users_folder(tmp_path: Path) -> None:
    if not (child := os.fork()):
        code = 1
        try:
            os.setuid(65534)
            require_writable(tmp_path / "runs")
        except ArtifactError as error:
            code = 2 if "Permission denied" in error.problem else 3
        finally:
            os._exit(code)
    assert exit_code(child) == 2


def test_too_little_room_is_said_before_the_first_step(kinds: Any) -> None:
    def nearly_full() -> None:
        real = shutil.disk_usage
        shutil.disk_usage = lambda path: real(path)._replace(free=10_000)

    kind = kinds(CHEAP[0])
    refused(kind, nearly_full)
    said = (kind.place / "error.txt").read_text()
    assert "no step was taken" in said and "KiB" in said
    require_room(kind.folder, 1)


@pytest.mark.parametrize(
    "name", ["adam", "adamw_8bit", "sgd", {"sgd": {"momentum": 0.9}}, "rmsprop", "muon", "adagrad"]
)
def test_the_size_of_an_optimisers_state(name: Any) -> None:
    layer = torch.nn.Linear(4, 3)
    groups = [{"params": list(layer.parameters()), "lr": 0.1, "base_lr": 0.1, "inside": [True, False]}]
    optimizer = build_optimizer(name, groups, 0.1, 0.0)
    foreseen = state_bytes(optimizer)
    layer(torch.ones(2, 4)).sum().backward()
    optimizer.step()
    tensors = state_tensors(optimizer, ["weight", "bias"]).values()
    assert foreseen == sum(value.numel() * value.element_size() for value in tensors)
