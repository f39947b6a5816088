"""Who writes checkpoints: the training itself, or a thread beside it that has a copy in the processor's memory.

Beside it the training waits for the copy alone, and not for hashes and the disk. Checkpoints are written in the order in which they were
saved, so the one on disk is always an earlier state of this training, whole; what could not be written is said at the next save.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Any

from torch import Tensor

from tunewright.training.checkpoints.checkpoint import Checkpoint, best_name, save_best, save_checkpoint
from tunewright.training.distributed.process_group import ProcessGroup

# At most so many copies wait to be written: a checkpoint, and the best weights that it names.
WAITING = 2


class Saver:
    """Saves into `root`; the end of the `with` waits for pending writes.

    Args:
        beside: write in a background thread, from a copy in CPU memory; worth it where the weights are on an accelerator.
        together: the processes that each write their shards; None: this process writes everything. Collective when given.
    """

    def __init__(self, root: Path, *, beside: bool, together: ProcessGroup | None) -> None:
        self.root = root
        self._thread = ThreadPoolExecutor(1) if beside else None
        # The thread's collective operations must not interleave with those of the training.
        self._together = together.new_group() if beside and together is not None else together
        self._writing: list[Future[Any]] = []

    def __enter__(self) -> Saver:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if self._thread is not None:
            self._thread.shutdown()
        if error is None:
            self._wait(0)

    def save(self, checkpoint: Checkpoint) -> None:
        """Save as `save_checkpoint` does. Raises RunFailed, for this checkpoint or an earlier one."""
        copied = replace(checkpoint, model=self._own(checkpoint.model), optimizer=self._own(checkpoint.optimizer))
        self._do(lambda: save_checkpoint(self.root, copied, self._together))

    def save_best(self, step: int, model: Mapping[str, Tensor]) -> str:
        """Save as `save_best` does. Raises RunFailed, for these weights or earlier ones."""
        copied = self._own(model)
        self._do(lambda: save_best(self.root, step, copied, self._together))
        return best_name(step)

    def _own(self, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return tensors that the training does not change while they are written."""
        if self._thread is None:
            return dict(tensors)
        self._wait(WAITING - 1)
        return {name: value.detach().to("cpu", copy=True) for name, value in tensors.items()}

    def _do(self, write: Callable[[], object]) -> None:
        if self._thread is None:
            write()
        else:
            self._writing.append(self._thread.submit(write))

    def _wait(self, most: int) -> None:
        while len(self._writing) > most:
            self._writing.pop(0).result()
