"""How many bytes of tensors are alive at each moment of a computation, and at which operation they are most.

Every operation's results are looked at as it is carried out. A storage counts from its first appearance until Python and autograd
have let go of it; what an operation allocates for itself and frees again is not seen.
"""

from __future__ import annotations

import weakref
from collections.abc import Iterable
from typing import Any

from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


class PeakTracer(TorchDispatchMode):
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
        self._known: dict[int, weakref.ref[Any]] = {}
        for tensor in already:
            self._note(tensor)
        self.peak = self.alive

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        found = func(*args, **(kwargs or {}))
        for leaf in tree_leaves(found):
            if isinstance(leaf, Tensor):
                self._note(leaf)
        if self.alive > self.peak:
            self.peak, self.peak_operation, self.peak_phase = self.alive, str(func), self.phase
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
