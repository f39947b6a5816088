"""What a computation does, operation by operation: the bytes of tensors that are alive, when they are most, and what each takes.

Every operation's results are looked at as it is carried out, on tensors with numbers or without. A storage counts from its first
appearance until Python and autograd have let go of it; what an operation allocates for itself and frees again is not seen.
"""

from __future__ import annotations

import math
import weakref
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import flop_registry

from tunewright.models.hollow import Hollowness


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


class Tracer(Hollowness):
    """Counts while it is entered.

    Args:
        already: tensors that are there before, such as weights.
    """

    def __init__(self, already: Iterable[Tensor] = ()) -> None:
        super().__init__()
        self.alive = 0
        self.peak = 0
        self.peak_operation = ""
        self.peak_phase = ""
        self.phase = ""
        """What is going on: said by who uses the tracer."""
        self.calls: Counter[Call] = Counter()
        self._known: dict[int, weakref.ref[Any]] = {}
        for tensor in already:
            self._note(tensor)
        self.peak = self.alive

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is torch.ops.prim.device.default:
            return func(*args)  # a question, asked very often
        given = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
        before = self.alive
        found = super().__torch_dispatch__(func, types, args, kwargs)
        made = [leaf for leaf in tree_leaves(found) if isinstance(leaf, Tensor)]
        for leaf in made:
            self._note(leaf)
        if self.alive > self.peak:
            self.peak, self.peak_operation, self.peak_phase = self.alive, str(func), self.phase
        if not func.is_view:
            self.calls[_call(func, args, kwargs or {}, found, given, made, self.alive - before)] += 1
        return found

    def _note(self, tensor: Tensor) -> None:
        if tensor.is_sparse:
            self._note(tensor._indices())
            self._note(tensor._values())
            return
        storage = tensor.untyped_storage()
        key = storage._cdata  # pyright: ignore[reportPrivateUsage]  what it is, whichever Python object stands for it
        if key in self._known:
            return
        size = storage.nbytes()

        def gone(reference: Any) -> None:
            if self._known.get(key) is reference:
                del self._known[key]
                self.alive -= size

        self._known[key] = weakref.ref(storage, gone)
        self.alive += size


def _call(func: Any, args: Any, kwargs: Any, found: Any, given: list[Tensor], made: list[Tensor], new: int) -> Call:
    formula = flop_registry.get(func.overloadpacket)
    flops = formula(*args, **kwargs, out_val=found) if formula is not None else 0
    moved = sum(map(_size, given)) + sum(_size(tensor) for tensor in made if all(tensor is not one for one in given))
    inputs = tuple((tuple(tensor.shape), str(tensor.dtype).removeprefix("torch.")) for tensor in given)
    return Call(str(func), inputs, int(flops), moved, max(0, new))


def _size(tensor: Tensor) -> int:
    return math.prod(tensor.shape) * tensor.element_size()
