"""Build networks with meta weights: tensors that have a shape, a type and a device, but no data.

Computing with them gives tensors without data in next to no time, so a training step of any size can be traced on any machine.
What depends on the input data alone stays real: whether a batch holds several documents, and how long its texts are.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager, nullcontext
from contextvars import ContextVar
from typing import Any, Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch._subclasses.fake_tensor import (
    DataDependentOutputException,
    DynamicOutputShapeException,
    FakeTensor,
    FakeTensorMode,
    UnsupportedFakeTensorException,
    UnsupportedOperatorException,
)
from torch.utils._python_dispatch import TorchDispatchMode

# Raised where a network reads data that a tensor does not have, or applies an operation without a rule for its shape.
DATA_REQUIRED = (
    DataDependentOutputException,
    DynamicOutputShapeException,
    UnsupportedFakeTensorException,
    UnsupportedOperatorException,
)

Weights = Literal["pretrained", "random", "meta", "sharded"]
"""The weights of a new network. pretrained: as recipe and files say. random: random in place of a file's. meta: meta tensors. sharded:
meta tensors except for an adapter's, where each process loads its shard of the others later."""
_weights: ContextVar[Weights] = ContextVar("weights", default="pretrained")


@contextmanager
def building_with(kind: Weights) -> Generator[None]:
    """Set which weights networks built within get. `use_fake_weights` prepares meta weights for computing."""
    token = _weights.set(kind)
    try:
        with nullcontext() if allocates_memory() else torch.device("meta"):
            yield
    finally:
        _weights.reset(token)


def reads_pretrained() -> bool:
    """Return whether pretrained weights are read from their files."""
    return _weights.get() == "pretrained"


def allocates_memory() -> bool:
    """Return whether networks built here have data in memory."""
    return _weights.get() in ("pretrained", "random")


# A module's parameters or buffers by name.
Tensors = dict[str, Tensor | None] | dict[str, nn.Parameter | None]


def use_fake_weights(network: nn.Module) -> list[tuple[Tensors, str, Tensor]]:
    """Replace a network's meta tensors by fake tensors on the CPU; tensors that have data stay.

    Returns:
        For each replaced tensor: the dictionary that held it, its name, and the tensor itself.
    """
    mode = FakeTensorMode(allow_non_fake_inputs=True)
    found: dict[int, Tensor] = {}
    replaced: list[tuple[Tensors, str, Tensor]] = []
    for module in network.modules():
        for kept in (module._parameters, module._buffers):  # pyright: ignore[reportPrivateUsage]  the only way to replace one
            for name, value in kept.items():
                if value is None or not is_unallocated(value):
                    continue
                if id(value) not in found:
                    empty: Tensor = FakeTensor(mode, value.detach(), torch.device("cpu"))  # pyright: ignore
                    whole = isinstance(value, nn.Parameter)
                    found[id(value)] = nn.Parameter(empty, value.requires_grad) if whole else empty
                replaced.append((kept, name, value))
                kept[name] = found[id(value)]  # pyright: ignore
    return replaced


@contextmanager
def fake_weights(network: nn.Module) -> Generator[None]:
    """Replace a network's meta weights by fake ones within, and restore them at the end."""
    if not has_meta_weights(network):
        yield
        return
    replaced = use_fake_weights(network)
    try:
        with torch.device("cpu") if replaced else nullcontext(), FakeShapes():
            yield
    finally:
        for kept, name, value in replaced:
            kept[name] = value  # pyright: ignore


def has_meta_weights(network: nn.Module) -> bool:
    """Return whether a network has meta weights: then all of its weights are."""
    return any(is_meta(value) for value in itertools.islice(network.parameters(), 1))


def is_unallocated(tensor: Tensor) -> bool:
    """Return whether a tensor is a meta tensor that was not replaced by a fake one."""
    return tensor.is_meta and not isinstance(tensor, FakeTensor)


def is_meta(tensor: Tensor) -> bool:
    """Return whether a tensor has no data."""
    return tensor.is_meta or isinstance(tensor, FakeTensor)


Operation = Callable[..., object]
aten = torch.ops.aten
# Operations that take indices. A mask gives no result shape without data, so it is turned into positions first.
BY_PLACE = (aten.index.Tensor, aten.index_put.default, aten.index_put_.default, aten._index_put_impl_.default)


class FakeShapes(TorchDispatchMode):
    """Compute operations on fake tensors whose result shape depends on real data."""

    def __torch_dispatch__(
        self, func: Operation, types: object, args: Sequence[Any] = (), kwargs: dict[str, Any] | None = None
    ) -> object:
        return self.computed(func, args, kwargs or {})

    def computed(self, func: Operation, args: Sequence[Any], kwargs: dict[str, Any]) -> object:
        """Return the result of the operation."""
        if func in BY_PLACE and is_meta(args[0]):
            args = (args[0], _places(args[1]), *args[2:])
        elif func in SHAPES and is_meta(args[0]):
            return SHAPES[func](*args, **kwargs)
        return func(*args, **kwargs)


def _places(indices: list[Tensor | None]) -> list[Tensor | None]:
    """Replace masks by the positions where they are true."""
    found: list[Tensor | None] = []
    for index in indices:
        if index is not None and index.dtype == torch.bool and not is_meta(index):
            found += index.nonzero().unbind(1)
        else:
            found.append(index)
    return found


def _ctc_loss(
    log_probs: Float[Tensor, "time batch classes"],
    targets: Tensor,
    input_lengths: Sequence[int] | Tensor,
    target_lengths: Sequence[int] | Tensor,
    *_: object,
) -> tuple[Float[Tensor, " batch"], Float[Tensor, "batch time paths"]]:
    """Return a loss for each recording, and the table of all paths with 2 L + 1 states (Graves et al. 2006, section 4.1)."""
    moments, batch = log_probs.shape[:2]
    longest = int(max(target_lengths))
    return log_probs.new_empty(batch), log_probs.new_empty(batch, moments, 2 * longest + 1)


def _pack_padded_sequence(
    inputs: Float[Tensor, "batch time features"], lengths: Int[Tensor, " batch"], batch_first: bool
) -> tuple[Float[Tensor, "steps features"], Int[Tensor, " longest"]]:
    """Return the steps of all sequences, and how many sequences each time step has."""
    sizes = (lengths[:, None] > torch.arange(int(lengths[0]))).sum(0)
    return inputs.new_empty(int(lengths.sum()), *inputs.shape[2:]), sizes


# The results of operations whose shape PyTorch cannot infer without data.
SHAPES: dict[Operation, Operation] = {
    aten._ctc_loss.default: _ctc_loss,
    aten._ctc_loss.Tensor: _ctc_loss,
    aten._pack_padded_sequence.default: _pack_padded_sequence,
}
