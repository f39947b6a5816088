"""What frozen blocks gave for each example, kept on disk by the content that it depends on, and used instead of the blocks.

A set is a folder `<key>/` with one raw file for each tensor and their checksums, which are written last and looked at when
the set is opened: a damaged one is computed anew. Sets that were not used for longest are removed when room is needed.
"""

from __future__ import annotations

import hashlib
import math
import os
import shutil
import tempfile
from collections.abc import Callable, Iterable
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from tunewright.cached import put_in_place
from tunewright.checksums import find_damage, write_checksums
from tunewright.data.batches.batch import BaseExamples, Batch, Examples, Truth
from tunewright.data.batches.examples import Ragged, selected
from tunewright.files import cache_dir
from tunewright.notes import note

# All sets together take at most so much, and at most half of what is free on the disk.
MOST_BYTES = 40 * 2**30


@dataclass(frozen=True, kw_only=True)
class Form:
    """One kept tensor: its shape for one example, or for one token where there is one row for each token."""

    shape: tuple[int, ...]
    dtype: torch.dtype
    by_token: bool


@dataclass(frozen=True)
class Behind(BaseExamples):
    """Examples whose batches bring what frozen blocks give."""

    examples: Examples

    @property
    def rows(self) -> Tensor:
        return self.examples.rows

    @property
    def target(self) -> Truth:
        return self.examples.target

    @property
    def lengths(self) -> Tensor | None:
        return self.examples.lengths  # so that the batches are those of the plain path

    @property
    def augmented(self) -> bool:
        return False  # of changed copies nothing is kept

    def __len__(self) -> int:
        return len(self.examples)

    def without_features(self) -> Examples:
        return self.examples


@dataclass(frozen=True)
class KeptExamples(Behind):
    """Examples whose batches bring what was kept of them.

    kept: [N, …] each, or Ragged where there is a row for each token. plain: the shape of one example's own input, when
    that is a tensor: with the kept outputs in its place it is not read any more, and empty here.
    """

    kept: list[Tensor | Ragged]
    plain: tuple[int, ...] | None
    join: Callable[[Any, list[Tensor]], Any]
    device: torch.device | None = None

    def to(self, device: torch.device) -> KeptExamples:
        return replace(self, examples=self.examples.to(device), device=device)

    def batch(self, ids: Tensor, epoch: int | None = None) -> Batch:
        length = 0 if self.lengths is None else int(self.lengths[ids].max())
        kept = [
            (part.padded(ids, 0.0, length) if isinstance(part, Ragged) else part.index_select(0, ids)).to(self.device)
            for part in self.kept
        ]
        if self.plain is None:
            batch = self.examples.batch(ids, epoch)
            return Batch(self.join(batch.inputs, kept), batch.target, ids)
        target = selected(self.examples.target, ids)
        empty = torch.zeros((), device=self.device).expand(len(ids), *self.plain)
        return Batch(self.join(empty, kept), target, ids)


def content_hash(examples: Examples) -> str:
    """Return the SHA-256 of the examples' inputs: of every field but the target and the row numbers."""
    digest = hashlib.sha256(type(examples).__name__.encode())
    for field in fields(examples):  # pyright: ignore[reportArgumentType]  all kinds of examples are dataclasses
        if field.name not in ("target", "rows", "device"):
            _add(digest, field.name, getattr(examples, field.name))
    return digest.hexdigest()


def _add(digest: Any, name: str, value: Any) -> None:
    if isinstance(value, Ragged):
        _add(digest, f"{name}.values", value.values)
        _add(digest, f"{name}.starts", value.starts)
    elif isinstance(value, Tensor):
        digest.update(f"{name} {value.dtype} {tuple(value.shape)}".encode())
        digest.update(value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy())
    else:
        digest.update(f"{name} {value!r}".encode())


def kept_bytes(forms: list[Form], count: int, tokens: int) -> int:
    """Return the size of a set of `count` examples with `tokens` tokens in all."""
    return sum((tokens if form.by_token else count) * math.prod(form.shape) * form.dtype.itemsize for form in forms)


def find_kept(key: str, forms: list[Form], starts: Tensor | None, count: int) -> list[Tensor | Ragged] | None:
    """Return a set that was kept before; None when there is none, or it is damaged.

    Args:
        starts: [N + 1], where each example's tokens begin; None when examples are no texts.
    """
    folder = _root() / key
    if not folder.exists():
        return None
    if (damage := find_damage(folder)) is not None:
        note(f"{damage}; the outputs of the frozen blocks are computed again")
        return None
    try:
        os.utime(folder)
        return _open(folder, forms, starts, count)
    except (OSError, RuntimeError):  # another process has just removed it to make room
        return None


def keep(
    key: str, forms: list[Form], starts: Tensor | None, count: int, parts: Iterable[tuple[Tensor, list[Tensor]]]
) -> list[Tensor | Ragged] | None:
    """Write a set, batch by batch; None where the disk has no room for it.

    Args:
        parts: for each batch the positions of its examples, and its tensors, as long as the longest text is in a batch.
    """
    size = kept_bytes(forms, count, int(starts[-1]) if starts is not None else 0)
    root = _root()
    root.mkdir(parents=True, exist_ok=True)
    if not _make_room(root, size):
        return None
    folder = Path(tempfile.mkdtemp(prefix=".new-", dir=root))
    try:
        for number, form in enumerate(forms):
            with (folder / f"{number}.bin").open("wb") as file:
                file.truncate(kept_bytes([form], count, int(starts[-1]) if starts is not None else 0))
        sinks = _open(folder, forms, starts, count, shared=True)
        for ids, tensors in parts:
            for sink, value in zip(sinks, tensors, strict=True):
                _write(sink, ids, value)
        del sinks
        write_checksums(folder)
        put_in_place(folder, root / key)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    return _open(root / key, forms, starts, count)


def _write(sink: Tensor | Ragged, ids: Tensor, value: Tensor) -> None:
    if isinstance(sink, Tensor):
        sink[ids] = value.cpu()
        return
    for row, example in enumerate(ids.tolist()):
        begin, end = int(sink.starts[example]), int(sink.starts[example + 1])
        sink.values[begin:end] = value[row, : end - begin].cpu()


def _open(
    folder: Path, forms: list[Form], starts: Tensor | None, count: int, *, shared: bool = False
) -> list[Tensor | Ragged]:
    """Open the set's tensors, mapped: only what is used is read."""
    found: list[Tensor | Ragged] = []
    for number, form in enumerate(forms):
        rows = int(starts[-1]) if form.by_token and starts is not None else count
        size = rows * math.prod(form.shape)
        file = folder / f"{number}.bin"
        if file.stat().st_size != size * form.dtype.itemsize:
            raise OSError(f"{file} is cut short")
        values = torch.from_file(str(file), shared=shared, size=size, dtype=form.dtype).reshape(rows, *form.shape)
        found.append(Ragged(values, starts) if form.by_token and starts is not None else values)
    return found


def _root() -> Path:
    return cache_dir() / "frozen"


def _make_room(root: Path, size: int) -> bool:
    """Remove the sets that were not used for longest until `size` bytes fit; False where they never will."""
    held = sorted((folder for folder in root.iterdir() if not folder.name.startswith(".")), key=_last_used)
    sizes = {folder: sum(file.stat().st_size for file in folder.glob("*.bin")) for folder in held}
    free = shutil.disk_usage(root).free
    limit = min(MOST_BYTES, (free + sum(sizes.values())) // 2)
    if size > limit:
        return False
    while held and sum(sizes[folder] for folder in held) + size > limit:
        shutil.rmtree(held.pop(0), ignore_errors=True)
    return True


def _last_used(folder: Path) -> float:
    return folder.stat().st_mtime
