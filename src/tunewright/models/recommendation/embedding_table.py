"""Define embedding tables for many users, items or values.

A table can have fewer rows than ids: then two hashes map each id to two rows, and its vector is their difference, so that hardly
any two ids share one (Svenstrup, Hansen and Winther 2017, with weights of 1 and −1). Its gradient can be sparse, with only the
rows that were looked up, and a row-wise optimizer then updates no other row.
"""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

# Odd factors with shifts, and a prime; the products stay below 2⁶³ for ids up to 2³¹ (Knuth 1998, section 6.4).
HASHES = ((2_654_435_761, 97), (2_246_822_519, 1_013))
PRIME = 4_294_967_291


class Table(nn.Module):
    """Map ids to vectors.

    Args:
        count: the number of ids.
        rows: the number of rows of the table, if smaller than `count`.
        sparse: whether the gradient holds only the rows that were looked up.
    """

    def __init__(self, count: int, width: int, rows: int | None = None, *, sparse: bool = False) -> None:
        super().__init__()
        self.count, self.sparse = count, sparse
        self.hashed = rows is not None and rows < count
        self.weight = nn.Parameter(torch.empty(rows if self.hashed and rows is not None else count, width))
        nn.init.normal_(self.weight)

    def forward(self, numbers: Int[Tensor, "*ids"] | None = None) -> Float[Tensor, "*_ features"]:
        """Return the vectors of some ids, or of all, [count, features]."""
        if numbers is None:
            if not self.hashed:
                return self.weight
            numbers = torch.arange(self.count, device=self.weight.device)
        if not self.hashed:
            return self._rows(numbers)
        first, second = (self._rows(self._hash(numbers.long(), *hashed)) for hashed in HASHES)
        return first - second

    def _hash(self, numbers: Int[Tensor, "*ids"], factor: int, shift: int) -> Int[Tensor, "*ids"]:
        return (numbers * factor + shift) % PRIME % len(self.weight)

    def _rows(self, numbers: Int[Tensor, "*ids"]) -> Float[Tensor, "*ids features"]:
        if self.sparse:
            return F.embedding(numbers, self.weight, sparse=True)
        # The gradient of index_select is accumulated in half the time of an embedding's.
        return self.weight.index_select(0, numbers.flatten()).unflatten(0, numbers.shape)


def has_sparse_gradients(network: nn.Module) -> bool:
    """Return whether some table has a sparse gradient."""
    return any(isinstance(module, Table) and module.sparse for module in network.modules())
