"""Checkpoints: every byte of every file counts, the one before is used, nothing half written survives."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from tunewright.errors import RunFailed
from tunewright.training.checkpoints import checkpoint as module
from tunewright.training.checkpoints.async_saver import Saver
from tunewright.training.checkpoints.checkpoint import (
    Checkpoint,
    find_damage,
    find_newest,
    load_best,
    read_checkpoint,
    save_best,
    save_checkpoint,
)


def load_newest(root: Path, warn: Callable[[str], None]) -> Checkpoint | None:
    folder = find_newest(root, warn)
    return None if folder is None else read_checkpoint(folder)


def made(step: int, best: str | None = None) -> Checkpoint:
    model = {"weight": torch.full((3, 2), float(step)), "count": torch.tensor(step)}
    state = {"step": step, "best": {"folder": best} if best else None}
    return Checkpoint(step=step, model=model, optimizer={"weight|exp_avg": torch.rand(3, 2)}, state=state)


def newest(root: Path) -> tuple[int | None, list[str]]:
    said: list[str] = []
    found = load_newest(root, said.append)
    return (found.step if found else None), said


def test_saved_and_loaded_bit_for_bit(tmp_path: Path) -> None:
    first = made(7)
    save_checkpoint(tmp_path, first)
    found = load_newest(tmp_path, lambda line: None)
    assert found is not None and found.state == first.state
    assert all(torch.equal(found.model[k], first.model[k]) for k in first.model)
    assert all(torch.equal(found.optimizer[k], first.optimizer[k]) for k in first.optimizer)


def test_the_newest_two_are_kept(tmp_path: Path) -> None:
    for step in (1, 2, 3, 10):
        save_checkpoint(tmp_path, made(step))
    assert sorted(os.listdir(tmp_path)) == ["step-00000003", "step-00000010"]


FILES = ["model.safetensors", "optimizer.safetensors", "state.json", "manifest.json"]


def damage(path: Path, how: str) -> None:
    content = path.read_bytes()
    if how == "delete":
        path.unlink()
    elif how == "empty":
        path.write_bytes(b"")
    elif how == "truncate":
        path.write_bytes(content[: len(content) // 2])
    elif how == "append":
        path.write_bytes(content + b" ")
    elif how == "folder":
        path.unlink()
        path.mkdir()
    else:
        place = {"first": 0, "middle": len(content) // 2, "last": len(content) - 1}[how]
        path.write_bytes(content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :])


@pytest.mark.parametrize("how", ["delete", "empty", "truncate", "append", "folder", "first", "middle", "last"])
@pytest.mark.parametrize("file", FILES)
def test_every_damage_is_found_and_the_one_before_is_used(tmp_path: Path, file: str, how: str) -> None:
    save_checkpoint(tmp_path, made(1))
    save_checkpoint(tmp_path, made(2))
    damage(tmp_path / "step-00000002" / file, how)
    step, said = newest(tmp_path)
    assert step == 1
    assert len(said) == 1 and "step-00000002" in said[0] and "damaged" in said[0]
    assert (tmp_path / "damaged-step-00000002").exists()


def test_every_single_flipped_bit_of_a_manifest_is_found(tmp_path: Path) -> None:
    save_checkpoint(tmp_path, made(1))
    path = tmp_path / "step-00000001" / "manifest.json"
    content = path.read_bytes()
    for place in range(len(content)):
        path.write_bytes(content[:place] + bytes([content[place] ^ (1 << place % 8)]) + content[place + 1 :])
        assert find_damage(path.parent) is not None, place
    path.write_bytes(content)
    assert find_damage(path.parent) is None


def test_all_damaged_means_from_the_start(tmp_path: Path) -> None:
    for step in (1, 2):
        save_checkpoint(tmp_path, made(step))
        damage(tmp_path / f"step-0000000{step}" / "state.json", "middle")
    step, said = newest(tmp_path)
    assert step is None and len(said) == 2


def test_damaged_best_weights_go_back_too(tmp_path: Path) -> None:
    old = save_best(tmp_path, 1, {"weight": torch.ones(2)})
    save_checkpoint(tmp_path, made(1, old))
    new = save_best(tmp_path, 2, {"weight": torch.zeros(2)})
    save_checkpoint(tmp_path, made(2, new))
    damage(tmp_path / new / "model.safetensors", "last")
    step, said = newest(tmp_path)
    assert step == 1 and len(said) == 2
    assert torch.equal(load_best(tmp_path, old)["weight"], torch.ones(2))
    with pytest.raises(RunFailed):
        load_best(tmp_path, new)


def test_best_weights_live_as_long_as_a_checkpoint_names_them(tmp_path: Path) -> None:
    names = []
    for step in (1, 2):
        names.append(save_best(tmp_path, step, {"w": torch.ones(1)}))
        save_checkpoint(tmp_path, made(step, names[-1]))
    assert sorted(path.name for path in tmp_path.glob("best-*")) == names
    save_checkpoint(tmp_path, made(3, names[1]))
    assert sorted(path.name for path in tmp_path.glob("best-*")) == names[1:]


@pytest.mark.parametrize("call", ["fsync", "replace", "mkdir"])
def test_a_full_disk_loses_no_good_checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str) -> None:
    save_checkpoint(tmp_path, made(1))

    def full(*arguments: object, **keywords: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patched:
        patched.setattr(os, call, full)
        with pytest.raises(RunFailed, match="No space left") as caught:
            save_checkpoint(tmp_path, made(2))
    assert "free disk space" in caught.value.message
    assert newest(tmp_path) == (1, [])
    assert sorted(os.listdir(tmp_path)) == ["step-00000001"]


def test_what_a_kill_left_half_written_is_swept(tmp_path: Path) -> None:
    save_checkpoint(tmp_path, made(1))
    (tmp_path / ".tmp-step-00000002-99").mkdir()
    (tmp_path / ".tmp-step-00000002-99" / "model.safetensors").write_bytes(b"half")
    (tmp_path / ".trash-step-00000000-99").mkdir()
    assert newest(tmp_path) == (1, [])
    assert sorted(os.listdir(tmp_path)) == ["step-00000001"]


def test_saving_the_same_step_again_replaces_it(tmp_path: Path) -> None:
    save_checkpoint(tmp_path, made(1))
    save_checkpoint(tmp_path, made(1))
    assert newest(tmp_path) == (1, []) and module.KEEP == 2


def test_a_thread_writes_what_was_saved_though_the_training_goes_on(tmp_path: Path) -> None:
    first = made(1)
    with Saver(tmp_path, beside=True, together=None) as saver:
        name = saver.save_best(1, first.model)
        saver.save(made(1, name))
        for step in range(2, 6):
            moving = made(step, name)
            saver.save(moving)
            moving.model["weight"].zero_()
    with Saver(tmp_path / "at-once", beside=False, together=None) as saver:
        saver.save_best(1, first.model)
        for step in range(1, 6):
            saver.save(made(step, name))
    assert sorted(os.listdir(tmp_path)) == sorted([*os.listdir(tmp_path / "at-once"), "at-once"])
    found = load_newest(tmp_path, lambda line: None)
    assert found is not None and torch.equal(found.model["weight"], torch.full((3, 2), 5.0))


def test_what_a_thread_cannot_write_ends_the_training(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(RunFailed, match="free disk space"):  # noqa: SIM117  the end of the inner one is what raises
        with Saver(tmp_path / "file", beside=True, together=None) as saver:
            saver.save(made(1))
    with pytest.raises(ZeroDivisionError):  # noqa: SIM117
        with Saver(tmp_path / "whole", beside=True, together=None) as saver:
            saver.save(made(3))
            _ = 1 / 0
    assert newest(tmp_path / "whole") == (3, [])
