"""Checkpoints that are complete or absent.

A checkpoint is a folder `step-00001234/` with `model.safetensors`, `optimizer.safetensors`, `state.json` and
`manifest.json`, which holds the SHA-256 of the others and of itself. It is written under a temporary name, synced
to disk and then renamed, so a crash at any moment leaves the checkpoints before it untouched. The newest two are
kept. A damaged one is set aside under the name `damaged-step-…`, with a line that says so, and the one before is used.

Where the tensors are sharded, each process writes its shards into the folders `model/` and `optimizer/` instead of the two files; any
number of processes can read them.

The best weights so far live beside them in `best-00001234/`, written the same way; `state.json` names the one that
it belongs to.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from tunewright.errors import RunFailed
from tunewright.files import remove_folder, sha256_file, sync_file, sync_folder, write_atomic
from tunewright.training.distributed.dtensors import is_sharded
from tunewright.training.distributed.process_group import ProcessGroup

KEEP = 2


Tensors = Mapping[str, Tensor]


@dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """All that a training needs to resume: flat dicts of tensors, and values that JSON can hold."""

    step: int
    model: dict[str, Tensor]
    optimizer: dict[str, Tensor]
    state: dict[str, Any]


def save_checkpoint(root: Path, checkpoint: Checkpoint, together: ProcessGroup | None = None) -> Path:
    """Write a checkpoint and delete all but the newest two.

    Args:
        together: the processes that each write their shards. Collective when given.

    Raises:
        RunFailed: the disk is full or cannot be written; the checkpoints before are untouched.
    """
    path = _write_folder(
        root,
        f"step-{checkpoint.step:08d}",
        {"model": checkpoint.model, "optimizer": checkpoint.optimizer},
        checkpoint.state,
        together,
    )
    if together is not None and not together.is_writer:
        return path
    _prune(root)
    return path


def best_name(step: int) -> str:
    """Return the folder name of the best weights, which the state of the next checkpoint holds."""
    return f"best-{step:08d}"


def save_best(root: Path, step: int, model: Tensors, together: ProcessGroup | None = None) -> str:
    """Write the best weights so far; arguments and errors as in `save_checkpoint`. Returns the folder's name."""
    name = best_name(step)
    if not (root / name).exists():
        _write_folder(root, name, {"model": model}, {"step": step}, together)
    return name


def find_newest(root: Path, warn: Callable[[str], None]) -> Path | None:
    """Return the newest undamaged checkpoint whose best weights are undamaged, too; None: there is none. For one process only."""
    _sweep(root)
    for folder in reversed(_folders(root, "step-")):
        damage = find_damage(folder)
        if damage is None:
            best = _best_of(folder)
            if best is None or (damage := find_damage(root / best)) is None:
                _prune(root)  # a killed process may have saved one more without deleting the oldest
                return folder
            _set_aside(root / best, damage, warn)
        _set_aside(folder, damage, warn)
    return None


def read_checkpoint(folder: Path, parts: Tensors | None = None) -> Checkpoint:
    """Read a checkpoint that `find_newest` found.

    Args:
        parts: the sharded parameters by name, of which only this process's shards are read; None: whole tensors are read.
    """
    return Checkpoint(
        step=int(folder.name.removeprefix("step-")),
        model=_read_tensors(folder, "model", parts),
        optimizer=_read_tensors(folder, "optimizer", parts),
        state=json.loads((folder / "state.json").read_bytes()),
    )


def load_best(root: Path, name: str, parts: Tensors | None = None, *, checked: bool = True) -> dict[str, Tensor]:
    """Read the best weights that a checkpoint's state names.

    Args:
        parts: as in `read_checkpoint`.
        checked: verify the hashes, which one of several processes does.

    Raises:
        RunFailed: they were damaged after the checkpoint was read.
    """
    damage = find_damage(root / name) if checked else None
    if damage is not None:
        raise RunFailed(f"the best weights are damaged: {damage}", file=root / name, fix="run the same command again")
    return _read_tensors(root / name, "model", parts)


def find_damage(folder: Path) -> str | None:
    """Return what is wrong with a checkpoint folder, in words; None: every byte is as it was written."""
    try:
        raw = (folder / "manifest.json").read_bytes()
        manifest = json.loads(raw)
        if raw != _encode_manifest(manifest["files"]):
            return "manifest.json was altered"
        for name, expected in manifest["files"].items():
            path = folder / name
            if not path.exists():
                return f"{name} is missing"
            if path.stat().st_size != expected["bytes"]:
                return f"{name} has {path.stat().st_size} bytes instead of {expected['bytes']}"
            if sha256_file(path) != expected["sha256"]:
                return f"{name} does not match its SHA-256"
    except FileNotFoundError:
        return "manifest.json is missing"
    except (OSError, ValueError, KeyError, TypeError, AttributeError, SafetensorError) as error:
        return f"it cannot be read ({error})"
    return None


def _write_folder(
    root: Path, name: str, tensors: dict[str, Tensors], state: dict[str, Any], together: ProcessGroup | None
) -> Path:
    temporary = root / f".tmp-{name}"
    final = root / name
    try:
        if together is None or together.is_writer:
            shutil.rmtree(temporary, ignore_errors=True)
            temporary.mkdir(parents=True)
        if together is not None:
            together.barrier()
        for kind, values in tensors.items():
            if together is not None:
                from tunewright.training.distributed.sharded_files import write_parts  # which takes long to load

                write_parts(temporary / kind, values, together)
                continue
            path = temporary / f"{kind}.safetensors"
            save_file({key: value.detach().contiguous() for key, value in values.items()}, path)
            sync_file(path)
        if together is not None and not together.is_writer:
            together.barrier()  # until the first process has renamed the folder
            return final
        write_atomic(temporary / "state.json", json.dumps(state, indent=1, allow_nan=False))
        files = {
            path.relative_to(temporary).as_posix(): {"bytes": path.stat().st_size, "sha256": sha256_file(path)}
            for path in sorted(temporary.rglob("*"))
            if path.is_file()
        }
        write_atomic(temporary / "manifest.json", _encode_manifest(files))
        if final.exists():
            remove_folder(final)
        os.replace(temporary, final)
        sync_folder(root)
        if together is not None:
            together.barrier()
    except (OSError, SafetensorError) as error:
        shutil.rmtree(temporary, ignore_errors=True)
        raise RunFailed(
            f"the checkpoint could not be written: {error}",
            file=final,
            fix="free disk space and run the same command again: it resumes from the previous checkpoint",
        ) from error
    return final


def _read_tensors(folder: Path, kind: str, parts: Tensors | None) -> dict[str, Tensor]:
    if (whole := folder / f"{kind}.safetensors").exists():
        found = load_file(whole)
        return found if parts is None else {name: _divided(name, value, parts) for name, value in found.items()}
    from tunewright.training.distributed.sharded_files import read_parts

    return read_parts(folder / kind, lambda name, size, dtype: _place(name, size, dtype, parts or {}))


def _place(name: str, size: torch.Size, dtype: torch.dtype, parts: Tensors) -> Tensor:
    """Return an empty tensor, sharded like the parameter that it is or belongs to."""
    like = parts.get(name, parts.get(name.removeprefix("state/").rpartition("/")[0]))
    return torch.zeros(size, dtype=dtype) if like is None or like.shape != size else torch.empty_like(like, dtype=dtype)


def _divided(name: str, whole: Tensor, parts: Tensors) -> Tensor:
    from tunewright.training.distributed.sharded_files import divide

    place = _place(name, whole.shape, whole.dtype, parts)
    return divide(whole, place) if is_sharded(place) else whole


def _encode_manifest(files: dict[str, Any]) -> bytes:
    body = json.dumps(files, indent=1, sort_keys=True)
    return json.dumps({"files": files, "sha256": hashlib.sha256(body.encode()).hexdigest()}, indent=1).encode()


def _folders(root: Path, prefix: str) -> list[Path]:
    return sorted(path for path in root.glob(f"{prefix}*") if path.is_dir())


def _set_aside(folder: Path, damage: str, warn: Callable[[str], None]) -> None:
    warn(f"{folder}: damaged ({damage}); set aside, going back to the checkpoint before")
    if folder.exists():
        aside = folder.with_name(f"damaged-{folder.name}")
        shutil.rmtree(aside, ignore_errors=True)
        folder.rename(aside)


def _prune(root: Path) -> None:
    """Delete all but the newest checkpoints, and best weights that none of these names.

    The newest best weights stay in any case: their checkpoint may not be written yet.
    """
    steps = _folders(root, "step-")
    for old in steps[:-KEEP]:
        remove_folder(old)
    kept = steps[-KEEP:]
    named = {_best_of(path) for path in kept}
    for folder in _folders(root, "best-")[:-1]:
        if folder.name not in named:
            remove_folder(folder)


def _best_of(folder: Path) -> str | None:
    """Return the name of the best weights that a checkpoint names; None, too, where the checkpoint is damaged."""
    try:
        return (json.loads((folder / "state.json").read_bytes()).get("best") or {}).get("folder")
    except (OSError, ValueError, AttributeError):
        return None


def _sweep(root: Path) -> None:
    """Remove what a killed process left partly written or partly deleted."""
    for path in [*root.glob(".tmp-*"), *root.glob(".trash-*")]:
        shutil.rmtree(path, ignore_errors=True)
