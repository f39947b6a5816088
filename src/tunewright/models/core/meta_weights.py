"""Networks without memory: their weights have a shape, a type and a place, and no numbers.

What is computed with them has no numbers either and takes next to no time, so a training step of any size can be followed on any
machine. What depends on the data alone stays real: whether a batch holds several documents, how long its texts are.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Generator
from contextlib import contextmanager, nullcontext
from contextvars import ContextVar
from typing import Any, Literal

import torch
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

# What is raised where a network looks at numbers that are not there, or computes what has no rule for its shape.
NUMBERS_ARE_WANTED = (
    DataDependentOutputException,
    DynamicOutputShapeException,
    UnsupportedFakeTensorException,
    UnsupportedOperatorException,
)

Weights = Literal["read", "random", "none", "parts"]
"""What the weights of a new network are: as recipe and files say; random, where files would say; without memory; without memory but for an
adapter's, as each process gets its part of the others later."""
_numbers: ContextVar[Weights] = ContextVar("numbers", default="read")


@contextmanager
def weights(numbers: Weights) -> Generator[None]:
    """What networks that are made within have as weights. `hollow` makes those without memory fit to compute with."""
    token = _numbers.set(numbers)
    try:
        with nullcontext() if memory_is_taken() else torch.device("meta"):
            yield
    finally:
        _numbers.reset(token)


def weights_are_read() -> bool:
    """Whether pretrained weights are read from their files."""
    return _numbers.get() == "read"


def memory_is_taken() -> bool:
    """Whether what is made here has numbers."""
    return _numbers.get() in ("read", "random")


def hollow(network: nn.Module) -> list[tuple[dict[str, Any], str, Tensor]]:
    """Let a network that was made without memory pass for one on the processor. Tensors that have numbers keep them.

    Returns:
        What was replaced: where, under which name, and by it.
    """
    mode = FakeTensorMode(allow_non_fake_inputs=True)
    found: dict[int, Tensor] = {}
    replaced: list[tuple[dict[str, Any], str, Tensor]] = []
    for module in network.modules():
        for kept in (module._parameters, module._buffers):  # pyright: ignore[reportPrivateUsage]  the only way to put in another
            for name, value in kept.items():
                if value is None or not is_in_no_memory(value):
                    continue
                if id(value) not in found:
                    empty: Tensor = FakeTensor(mode, value.detach(), torch.device("cpu"))  # pyright: ignore
                    whole = isinstance(value, nn.Parameter)
                    found[id(value)] = nn.Parameter(empty, value.requires_grad) if whole else empty
                replaced.append((kept, name, value))
                kept[name] = found[id(value)]  # pyright: ignore
    return replaced


@contextmanager
def hollowed(network: nn.Module) -> Generator[None]:
    """Let the network be computed with, where it was made without memory, and put everything back."""
    if not has_no_numbers(network):
        yield
        return
    replaced = hollow(network)
    try:
        with torch.device("cpu") if replaced else nullcontext(), Hollowness():
            yield
    finally:
        for kept, name, value in replaced:
            kept[name] = value


def has_no_numbers(network: nn.Module) -> bool:
    """Whether a network was made without memory: then all of its weights were."""
    return any(is_meta(value) for value in itertools.islice(network.parameters(), 1))


def is_in_no_memory(tensor: Tensor) -> bool:
    """Whether a tensor was made without memory and cannot be computed with yet."""
    return tensor.is_meta and not isinstance(tensor, FakeTensor)


def is_meta(tensor: Tensor) -> bool:
    """Whether a tensor has no numbers."""
    return tensor.is_meta or isinstance(tensor, FakeTensor)


aten = torch.ops.aten
# Operations that look at places: with hollow tensors a mask cannot say how many, so the places are looked up first.
BY_PLACE = (aten.index.Tensor, aten.index_put.default, aten.index_put_.default, aten._index_put_impl_.default)


class Hollowness(TorchDispatchMode):
    """What hollow tensors need where a result's shape depends on numbers that are there."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return self.computed(func, args, kwargs or {})

    def computed(self, func: Any, args: Any, kwargs: Any) -> Any:
        """What the operation gives."""
        if func in BY_PLACE and is_meta(args[0]):
            args = (args[0], _places(args[1]), *args[2:])
        elif func in SHAPES and is_meta(args[0]):
            return SHAPES[func](*args, **kwargs)
        return func(*args, **kwargs)


def _places(indices: list[Tensor | None]) -> list[Tensor | None]:
    """Masks as the places where they are true."""
    found: list[Tensor | None] = []
    for index in indices:
        if index is not None and index.dtype == torch.bool and not is_meta(index):
            found += index.nonzero().unbind(1)
        else:
            found.append(index)
    return found


def _ctc_loss(log_probs: Tensor, targets: Tensor, input_lengths: Any, target_lengths: Any, *_: Any) -> Any:
    """A loss for each recording [B], and the table of all paths [B, T, 2 L + 1] (Graves et al. 2006, section 4.1)."""
    moments, batch = log_probs.shape[:2]
    longest = int(max(target_lengths))
    return log_probs.new_empty(batch), log_probs.new_empty(batch, moments, 2 * longest + 1)


def _pack_padded_sequence(inputs: Tensor, lengths: Tensor, batch_first: bool) -> Any:
    """The moments of all sequences [ΣT, D], and how many sequences each moment has [longest]."""
    sizes = (lengths[:, None] > torch.arange(int(lengths[0]))).sum(0)
    return inputs.new_empty(int(lengths.sum()), *inputs.shape[2:]), sizes


# What comes of operations that PyTorch cannot tell without numbers.
SHAPES: dict[Any, Callable[..., Any]] = {
    aten._ctc_loss.default: _ctc_loss,
    aten._ctc_loss.Tensor: _ctc_loss,
    aten._pack_padded_sequence.default: _pack_padded_sequence,
}
