"""Check, before a stage's first step, that the disk has room for its checkpoints and model."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from torch import Tensor
from torch.optim import Optimizer

from tunewright.errors import RunFailed
from tunewright.files import free_disk
from tunewright.recipe.schema import Train
from tunewright.training.checkpoints.checkpoint import KEEP
from tunewright.training.optimizers.registry import state_bytes
from tunewright.units import size_of


def checkpoint_room(train: Train, total_steps: int, moving: Iterable[Tensor], optimizer: Optimizer) -> int:
    """Return an upper bound on the bytes of a stage's checkpoints, best weights and model.

    Args:
        moving: the tensors of the network that the stage changes.
    """
    trained = sum(value.numel() * value.element_size() for value in moving)
    saves = train.epochs + (total_steps // train.checkpoint_steps if train.checkpoint_steps else 0)
    # One is written while the newest ones are still there; and the model holds at least what was trained.
    return min(KEEP + 1, saves) * (trained + state_bytes(optimizer)) + trained


def require_room(folder: Path, needed: int) -> None:
    """Check that so many bytes fit on the disk, counting what the folder already holds.

    Raises:
        RunFailed: they do not.
    """
    held = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    free = free_disk(folder)
    if needed - held > free:
        raise RunFailed(
            "the disk has no room for the checkpoints and the model of this stage; no step was taken",
            file=folder,
            found=f"{size_of(free)} are free",
            expected=f"{size_of(needed - held)}",
            fix="free disk space, or name another disk with --runs, and run the same command again",
        )
