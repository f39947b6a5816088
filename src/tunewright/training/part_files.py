"""Each process's part of divided tensors in a file of its own: torch.distributed.checkpoint, as safetensors."""

from __future__ import annotations

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
from tunewright.training.team import Team


def divide(whole: Tensor, like: Tensor) -> Tensor:
    """A tensor that every process has, divided as another is."""
    assert isinstance(like, DTensor)
    return distribute_tensor(whole.to(like.device), like.device_mesh, like.placements, src_data_rank=None)


def write_parts(folder: Path, tensors: Mapping[str, Tensor], together: Team) -> None:
    """Each process of a team writes its part of every tensor. Collective.

    Raises:
        OSError: one of them could not.
    """
    try:
        writer = HuggingFaceStorageWriter(str(folder), save_distributed=True)
        save(dict(tensors), storage_writer=writer, process_group=together.group)
    except CheckpointException as error:
        raise OSError(str(next(iter(error.failures.values()))[0])) from error
    for path in folder.glob(f"shard-{together.rank + 1:05d}-*"):
        sync_file(path)
    together.wait()  # before anyone moves the folder


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
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that no other process reads is what is meant
        load(tensors, storage_reader=HuggingFaceStorageReader(str(folder)), no_dist=True)
    return tensors
