"""Recompute activations in the backward pass where they would not fit into memory (Chen et al. 2016)."""

from __future__ import annotations

import ctypes
import gc
import os
import resource
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

import pyarrow as pa
import torch
from torch import Tensor

from tunewright.console import Console
from tunewright.data.batches.batch import Examples
from tunewright.hardware.memory_tracer import piece_of
from tunewright.models.core.meta_weights import has_meta_weights
from tunewright.models.core.network import Network, evaluating
from tunewright.recipe.schema import Recipe

# The share of the free memory that activations may take; the rest is for gradients and what a step needs for a moment.
SHARE = 0.5
# Bytes of weights from which on a network is large: a plan then spares each pass that it can.
LARGE = 4 * 2**30


def save_memory(
    network: Network, recipe: Recipe, examples: Examples, console: Console, free: int | None = None
) -> tuple[bool, int | None]:
    """Switch gradient checkpointing on where the recipe says so or memory asks for it.

    The results are the same to the last bit; a step takes about a third longer.

    Args:
        free: bytes of memory that there are, on a machine that is not this one; None: what is free here.

    Returns:
        Whether it is on, and the activations of the largest example where they were counted.
    """
    wanted = recipe.hardware.gradient_checkpointing
    if wanted is False:
        return False, None
    if not network.supports_gradient_checkpointing:
        if wanted is True:
            console.warning(
                "hardware.gradient_checkpointing is not used: this network cannot recompute its activations"
            )
        return False, None
    each = None
    if wanted == "auto":
        free = free_memory(network) if free is None else free
        if has_meta_weights(network) and weight_bytes(network) > max(free, LARGE):
            console.info("activations are recomputed: the weights alone do not fit")
        else:
            each = activation_bytes(network, examples)
            needed = each * recipe.train.batch_size
            if needed < SHARE * free:
                return False, each
            console.info(
                f"activations are recomputed: {needed / 2**30:.1f} GiB of them would not fit well into {free / 2**30:.1f} GiB"
            )
    network.enable_gradient_checkpointing()
    return True, each


def weight_bytes(network: Network) -> int:
    """Of all parameters."""
    return tensor_bytes(network.parameters())


def tensor_bytes(tensors: Iterable[Tensor]) -> int:
    """Of all of them."""
    return sum(value.numel() * value.element_size() for value in tensors)


def activation_bytes(network: Network, examples: Examples) -> int:
    """Return the bytes that a forward pass of the largest example keeps for the backward pass, without weights."""
    lengths = examples.lengths
    longest = torch.zeros(1, dtype=torch.int64) if lengths is None else lengths.argmax().reshape(1)
    weights = {piece_of(value) for value in network.parameters()}
    sizes: dict[int, int] = {}

    def note(tensor: Tensor) -> Tensor:
        if piece_of(tensor) not in weights:
            sizes[piece_of(tensor)] = tensor.untyped_storage().nbytes()
        held.append(tensor)  # its memory must not be reused while we count
        return tensor

    held: list[Tensor] = []
    with evaluating(network), torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        network(examples.batch(longest).inputs)
    return sum(sizes.values())


def free_memory(network: Network) -> int:
    """Return the bytes available on the network's device; CPU memory includes the page cache."""
    device = next(network.parameters()).device
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    with suppress(OSError, StopIteration, ValueError):
        lines = Path("/proc/meminfo").read_text().splitlines()
        return 1024 * int(next(line for line in lines if line.startswith("MemAvailable")).split()[1])
    return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def give_back() -> None:
    """Return freed memory to the operating system."""
    pa.default_memory_pool().release_unused()
    with suppress(OSError, AttributeError):
        ctypes.CDLL("libc.so.6").malloc_trim(0)


def resident_memory() -> int:
    """Return the bytes that this process holds, after returning freed memory."""
    gc.collect()
    give_back()
    with suppress(OSError, IndexError, ValueError):
        return resource.getpagesize() * int(Path("/proc/self/statm").read_text().split()[1])
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def forget_peak() -> None:
    """Reset the peak that `peak_memory` reports, where the system allows it."""
    give_back()
    with suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")


def peak_memory() -> int | None:
    """Return the peak bytes of this process, or on a GPU of its tensors; None: the system does not report it."""
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated()
    with suppress(OSError, StopIteration, ValueError):
        lines = Path("/proc/self/status").read_text().splitlines()
        return 1024 * int(next(line for line in lines if line.startswith("VmHWM")).split()[1])
    return None
