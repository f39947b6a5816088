"""Read and write sharded tensors, one file per process: torch.distributed.checkpoint with safetensors."""

from __future__ import annotations

import shutil
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path

import torch
from torch import Tensor
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.hf_storage import HuggingFaceStorageReader, HuggingFaceStorageWriter
from torch.distributed.checkpoint.metadata import TensorStorageMetadata
from torch.distributed.checkpoint.state_dict_loader import load
from torch.distributed.checkpoint.state_dict_saver import save
from torch.distributed.tensor import DTensor, distribute_tensor

from tunewright.files import sync_file
from tunewright.training.distributed.process_group import ProcessGroup

# A model with more bytes of weights than this is saved in several files.
FILE = 4 * 2**30


def divide(whole: Tensor, like: Tensor) -> Tensor:
    """Shard a tensor that every process has, with the placement of another."""
    assert isinstance(like, DTensor)
    return distribute_tensor(whole.to(like.device), like.device_mesh, like.placements, src_data_rank=None)


def write_parts(folder: Path, tensors: Mapping[str, Tensor], together: ProcessGroup) -> None:
    """Write this process's shard of every tensor. Collective.

    Raises:
        OSError: one of them could not.
    """
    _save(tensors, HuggingFaceStorageWriter(str(folder), save_distributed=True), together)
    for path in folder.glob(f"shard-{together.rank + 1:05d}-*"):
        sync_file(path)
    together.barrier()  # before anyone moves the folder


def write_whole(folder: Path, tensors: Mapping[str, Tensor], together: ProcessGroup) -> None:
    """Write sharded tensors as `model.safetensors`, or as several files with an index where they are large. Collective.

    Each process writes its shards, and the first consolidates the files by copying, so no process holds more than its own shards.

    Raises:
        OSError: one of them could not.
    """
    index: dict[str, int] = {}
    size = 0
    for name, value in tensors.items():
        size += value.numel() * value.element_size()
        index[name] = 1 + size // FILE
    if together.is_writer and folder.exists():  # left by an interrupted save
        shutil.rmtree(folder / "sharded", ignore_errors=True)
        for path in folder.glob("model*.safetensors*"):
            path.unlink()
    together.barrier()
    numbers = {number: place for place, number in enumerate(sorted(set(index.values())), start=1)}
    index = {name: numbers[number] for name, number in index.items()}
    writer = HuggingFaceStorageWriter(
        str(folder), fqn_to_index_mapping=index, save_distributed=True, enable_consolidation=True
    )
    _save(tensors, writer, together)
    if together.is_writer:
        shutil.rmtree(folder / "sharded")
        if len(numbers) == 1:
            (folder / "model-00001-of-00001.safetensors").rename(folder / "model.safetensors")
            (folder / "model.safetensors.index.json").unlink()
        for path in folder.glob("model*.safetensors"):
            sync_file(path)
    together.barrier()


def _save(tensors: Mapping[str, Tensor], writer: HuggingFaceStorageWriter, together: ProcessGroup) -> None:
    try:
        save(dict(tensors), storage_writer=writer, process_group=together.group)
    except CheckpointException as error:
        raise OSError(str(next(iter(error.failures.values()))[0])) from error


def gathered(tensors: Mapping[str, Tensor], together: ProcessGroup) -> dict[str, Tensor]:
    """Gather sharded tensors in the CPU memory of the first process; nothing in the others. Collective."""
    found: dict[str, Tensor] = {}
    for name, value in tensors.items():
        whole = value.full_tensor() if isinstance(value, DTensor) else value
        if together.is_writer:
            found[name] = whole.cpu()
    return found


def read_into(folder: Path, tensors: Mapping[str, Tensor]) -> None:
    """Fill tensors by name from a folder of safetensors; of a sharded one only this process's shard is read."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it warns that no other process takes part
        load(dict(tensors), storage_reader=HuggingFaceStorageReader(str(folder)), no_dist=True)


def read_parts(folder: Path, place: Callable[[str, torch.Size, torch.dtype], Tensor]) -> dict[str, Tensor]:
    """Read tensors that any number of processes wrote.

    Args:
        place: (name, size, type) → an empty tensor; of a sharded one this process's shard is read.
    """
    reader = HuggingFaceStorageReader(str(folder))
    described = reader.read_metadata().state_dict_metadata
    tensors = {
        name: place(name, found.size, found.properties.dtype)
        for name, found in described.items()
        if isinstance(found, TensorStorageMetadata)
    }
    read_into(folder, tensors)
    return tensors
