"""What a computation does, operation by operation: the bytes of tensors that are alive, when they are most, and what each takes.

Every operation's results are looked at as it is carried out, on tensors with numbers or without. A storage counts from its first
appearance until Python and autograd have let go of it; what an operation allocates for itself and frees again is not seen.
"""

from __future__ import annotations

import math
import weakref
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves, tree_map
from torch.utils.flop_counter import flop_registry

from tunewright.models.core.meta_weights import FakeShapes, is_meta

# Whole numbers say where to look and how often; so many of them are kept for a repetition at most.
KEPT = 10_000_000


@dataclass(frozen=True)
class Call:
    """An operation on tensors of certain shapes. Equal ones take the same time."""

    name: str
    """Such as aten.mm.default."""
    inputs: tuple[tuple[tuple[int, ...], str], ...]
    """Shape and type of each tensor that goes in."""
    flops: int
    bytes: int
    """Read and written."""
    new: int
    """Of them in memory that was not there before."""

    @property
    def dtype(self) -> str:
        """The type of what it computes with, or float32."""
        floats = [kind for _, kind in self.inputs if "float" in kind]
        return floats[-1] if floats else "float32"


@dataclass(frozen=True)
class Like:
    """What stands for a tensor until it is made again."""

    shape: tuple[int, ...]
    stride: tuple[int, ...]
    dtype: torch.dtype


@dataclass(frozen=True)
class Carried:
    """How an operation was called, so that it can be carried out once more."""

    function: Any
    args: Any
    kwargs: Any


class Tracer(FakeShapes):
    """Counts while it is entered.

    Args:
        already: tensors that are there before, by what they are, such as "weights".
    """

    def __init__(self, already: Mapping[str, Iterable[Tensor]] | None = None) -> None:
        super().__init__()
        self.alive: Counter[str] = Counter()
        """Bytes, by what they were made for."""
        self.peak: Counter[str] = Counter()
        self.most = 0
        """The bytes of the peak, in all."""
        self.peak_at = ""
        """The phase and the operation."""
        self.phase = ""
        """What is going on: said by who uses the tracer."""
        self.calls: dict[str, Counter[Call]] = {}
        """By phase."""
        self.examples: dict[Call, Carried] = {}
        self.views = 0
        """Operations that only look at memory in another way."""
        self._total = 0
        self._known: dict[int, tuple[weakref.ref[Any], int]] = {}
        self._made_for: dict[int, str] = {}
        for self.phase, tensors in (already or {}).items():
            for tensor in tensors:
                self._note(tensor)
        self._compare("the beginning")

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is torch.ops.prim.device.default:
            return func(*args)  # a question, asked very often
        kwargs = kwargs or {}
        given = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
        before = self._total
        found = self.computed(func, args, kwargs)
        if func.is_view:
            self.views += 1
            return found
        made = [leaf for leaf in tree_leaves(found) if isinstance(leaf, Tensor)]
        for leaf in made:
            self._note(leaf)
        self._compare(str(func))
        call = _call(func, args, kwargs, found, given, made, self._total - before)
        self.calls.setdefault(self.phase, Counter())[call] += 1
        if call not in self.examples:
            self.examples[call] = Carried(func, *tree_map(_remembered, (args, kwargs)))
        return found

    def made_for(self, tensor: Tensor, what: str) -> None:
        """Say what a tensor turned out to be, such as a gradient."""
        for part in _plain(tensor):
            key = piece_of(part)
            if key in self._known:
                size = self._known[key][1]
                self.alive[self._made_for[key]] -= size
                self.alive[what] += size
                self._made_for[key] = what

    def all_calls(self) -> Counter[Call]:
        """Those of all phases."""
        return sum(self.calls.values(), Counter())

    def _compare(self, operation: str) -> None:
        if self._total > self.most:
            self.most, self.peak = self._total, self.alive.copy()
            self.peak_at = f"{self.phase}, {operation}"

    def _note(self, tensor: Tensor) -> None:
        for part in _plain(tensor):
            storage, key = part.untyped_storage(), piece_of(part)
            if key in self._known:
                continue
            size = storage.nbytes()

            def gone(reference: Any, key: int = key, size: int = size) -> None:
                if key in self._known and self._known[key][0] is reference:
                    del self._known[key]
                    self._total -= size
                    self.alive[self._made_for.pop(key)] -= size

            self._known[key] = (weakref.ref(storage, gone), size)
            self._made_for[key] = self.phase
            self._total += size
            self.alive[self.phase] += size


def piece_of(tensor: Tensor) -> int:
    """Which piece of memory a tensor lies in, with numbers or without, whichever Python object stands for it."""
    return tensor.untyped_storage()._cdata  # pyright: ignore[reportPrivateUsage]


def _plain(tensor: Tensor) -> list[Tensor]:
    return [tensor._indices(), tensor._values()] if tensor.is_sparse else [tensor]


def _call(func: Any, args: Any, kwargs: Any, found: Any, given: list[Tensor], made: list[Tensor], new: int) -> Call:
    formula = flop_registry.get(func.overloadpacket)
    flops = formula(*args, **kwargs, out_val=found) if formula is not None else 0
    moved = sum(map(_size, given)) + sum(_size(tensor) for tensor in made if all(tensor is not one for one in given))
    inputs = tuple((tuple(tensor.shape), str(tensor.dtype).removeprefix("torch.")) for tensor in given)
    return Call(str(func), inputs, int(flops), moved, max(0, new))


def _size(tensor: Tensor) -> int:
    return math.prod(tensor.shape) * tensor.element_size()


def _remembered(value: Any) -> Any:
    if not isinstance(value, Tensor):
        return value
    if tensor_is_plain(value) and not is_meta(value) and not value.is_floating_point() and value.numel() <= KEPT:
        return value.detach().clone()
    return Like(tuple(value.shape), tuple(value.stride()) if tensor_is_plain(value) else (), value.dtype)


def tensor_is_plain(tensor: Tensor) -> bool:
    """Whether its numbers lie in one piece of memory."""
    return tensor.layout == torch.strided
