"""Weights in PyTorch's older format: read as tensors and nothing else, and kept as safetensors from then on."""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor

from tunewright.errors import ArtifactError


def read_old_weights(path: Path) -> dict[str, Tensor]:
    """The tensors of a .pth or .bin file by name; refuses a file with anything but tensors in it.

    Raises:
        ArtifactError: the file holds code, or is damaged.
    """
    try:
        tensors = torch.load(path, map_location="cpu", weights_only=True)
        if not isinstance(tensors, dict) or not all(isinstance(value, Tensor) for value in tensors.values()):
            raise ValueError("it holds other things than tensors by name")
    except Exception as error:
        reason = str(error).strip().splitlines()[0]
        raise ArtifactError(
            f"the weights were not read: {reason}",
            file=path,
            expected="tensors by name and nothing else",
            fix="take weights in the safetensors format; nothing in this file was run",
        ) from None
    return tensors


def write_weights(path: Path, tensors: dict[str, Tensor]) -> None:
    """A safetensors file, whole or absent."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_suffix(".tmp")
    save_file({name: value.clone().contiguous() for name, value in tensors.items()}, temporary)
    temporary.replace(path)
