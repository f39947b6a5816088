"""Tensors that are divided among processes (DTensors): what each process finds in its own part, and what that is over all."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from torch import Tensor, distributed


def is_divided(tensor: Tensor) -> bool:
    """Whether each process keeps a part of it."""
    # Whoever trains alone need not wait for the library: where it was never loaded, nothing is divided.
    library = sys.modules.get("torch.distributed.tensor")
    return library is not None and isinstance(tensor, library.DTensor)


def own_part(tensor: Tensor) -> Tensor:
    """Of a divided tensor what this process keeps; any other as it is."""
    return tensor.to_local() if is_divided(tensor) else tensor  # pyright: ignore[reportCallIssue]


def over_all(found: Tensor, tensors: Sequence[Tensor]) -> Tensor:
    """The sums over all processes of numbers that were found on the `own_part` of the tensors; as they are where none is divided."""
    if any(is_divided(value) for value in tensors):
        distributed.all_reduce(found)
    return found
