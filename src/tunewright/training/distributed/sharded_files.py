"""Each process's part of divided tensors in a file of its own: torch.distributed.checkpoint, as safetensors."""

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

# Bytes of weights from which on a model is saved in several files.
FILE = 4 * 2**30


def divide(whole: Tensor, like: Tensor) -> Tensor:
    """A tensor that every process has, divided as another is."""
    assert isinstance(like, DTensor)
    return distribute_tensor(whole.to(like.device), like.device_mesh, like.placements, src_data_rank=None)


def write_parts(folder: Path, tensors: Mapping[str, Tensor], together: ProcessGroup) -> None:
    """Each process of a team writes its part of every tensor. Collective.

    Raises:
        OSError: one of them could not.
    """
    _save(tensors, HuggingFaceStorageWriter(str(folder), save_distributed=True), together)
    for path in folder.glob(f"shard-{together.rank + 1:05d}-*"):
        sync_file(path)
    together.barrier()  # before anyone moves the folder


def write_whole(folder: Path, tensors: Mapping[str, Tensor], together: ProcessGroup) -> None:
    """Divided tensors as `model.safetensors`, or as several files with an index where they are large. Collective; each process writes its
    part, and the first makes whole ones of them by copying, so nobody holds more than its own.

    Raises:
        OSError: one of them could not.
    """
    index: dict[str, int] = {}
    size = 0
    for name, value in tensors.items():
        size += value.numel() * value.element_size()
        index[name] = 1 + size // FILE
    if together.is_writer and folder.exists():  # of an end that was not reached
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
    """Divided tensors whole, in the memory of the first process; nothing in the others. Collective."""
    found: dict[str, Tensor] = {}
    for name, value in tensors.items():
        whole = value.full_tensor() if isinstance(value, DTensor) else value
        if together.is_writer:
            found[name] = whole.cpu()
    return found


def read_into(folder: Path, tensors: Mapping[str, Tensor]) -> None:
    """Fill tensors, by their names, from a folder of safetensors; of a divided one the part that this process keeps is read."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that no other process reads is what is meant
        load(dict(tensors), storage_reader=HuggingFaceStorageReader(str(folder)), no_dist=True)


def read_parts(folder: Path, place: Callable[[str, torch.Size, torch.dtype], Tensor]) -> dict[str, Tensor]:
    """What any number of processes wrote.

    Args:
        place: an empty tensor for the name, size and type: a divided one gets the part of it that this process keeps.
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
