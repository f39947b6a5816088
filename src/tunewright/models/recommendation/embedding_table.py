"""Tables of vectors, one for each of many users, items or values.

A table can have fewer rows than there are numbers: then each number has two rows, by two hashes, and its vector is their
difference, so that hardly any two numbers share one (Svenstrup, Hansen and Winther 2017, with weights of 1 and −1). And its gradient can be sparse, the rows
that were looked up alone, which an optimiser of rows then moves and no other.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

# Odd numbers and a prime, of which the products stay below 2⁶³ for numbers up to 2³¹ (Knuth 1998, section 6.4).
HASHES = ((2_654_435_761, 97), (2_246_822_519, 1_013))
PRIME = 4_294_967_291


class Table(nn.Module):
    """Numbers [...] to vectors [..., D]; without numbers all of them, [N, D].

    Args:
        count: N.
        rows: how many rows the table has, where these are to be fewer.
        sparse: the gradient is of the rows that were looked up.
    """

    def __init__(self, count: int, width: int, rows: int | None = None, *, sparse: bool = False) -> None:
        super().__init__()
        self.count, self.sparse = count, sparse
        self.hashed = rows is not None and rows < count
        self.weight = nn.Parameter(torch.empty(rows if self.hashed and rows is not None else count, width))
        nn.init.normal_(self.weight)

    def forward(self, numbers: Tensor | None = None) -> Tensor:
        if numbers is None:
            if not self.hashed:
                return self.weight
            numbers = torch.arange(self.count, device=self.weight.device)
        if not self.hashed:
            return self._rows(numbers)
        first, second = (self._rows(self._hash(numbers.long(), *hashed)) for hashed in HASHES)
        return first - second

    def _hash(self, numbers: Tensor, factor: int, shift: int) -> Tensor:
        return (numbers * factor + shift) % PRIME % len(self.weight)

    def _rows(self, numbers: Tensor) -> Tensor:
        if self.sparse:
            return F.embedding(numbers, self.weight, sparse=True)
        # The gradient of index_select is added up in half the time of an embedding's.
        return self.weight.index_select(0, numbers.flatten()).unflatten(0, numbers.shape)


def has_sparse_gradients(network: nn.Module) -> bool:
    """Whether the gradient of some table is of its rows."""
    return any(isinstance(module, Table) and module.sparse for module in network.modules())
