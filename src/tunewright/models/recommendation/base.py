"""Networks that give every item a score for a user.

Shapes: B users or pairs, I items, D the width of a vector. Users and items are whole numbers from 0.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from typing import Annotated, Any

import torch
from pydantic import Field
from torch import Tensor, nn

from tunewright.models.core.layers import seeded
from tunewright.models.core.network import Block, Network
from tunewright.models.recommendation.ctr import Embeddings
from tunewright.models.recommendation.embedding_table import Table
from tunewright.random import mix

SIDES = ("user", "item")
# Pairs that go through a perceptron at once where all items are scored.
PAIRS = 2**18

Positive = Annotated[int, Field(gt=0)]


class Vectors(nn.Module):
    """A table of vectors, normal about 0 with a standard deviation of √(2 / (rows + D)) (Glorot and Bengio 2010)."""

    def __init__(self, count: int, width: int, rows: int | None = None, sparse: bool = False) -> None:
        super().__init__()
        self.table = Table(count, width, rows, sparse=sparse)
        nn.init.xavier_normal_(self.table.weight)

    def forward(self, numbers: Tensor | None = None) -> Tensor:
        """Those of some rows, or all of them."""
        return self.table(numbers)


class Recommender(Network):
    """What all of them can do. The parts, made by `parts`, are the blocks that are frozen or trained."""

    def __init__(self, described: dict[str, Any], seed: int) -> None:
        super().__init__()
        self.spec = described
        for name, make in self.parts(described["recommender"]):
            self.add_module(name, seeded(mix(seed, name), make))

    @abstractmethod
    def parts(self, facts: dict[str, Any]) -> list[tuple[str, Callable[[], nn.Module]]]:
        """Names and makers of the blocks, from the description."""

    @abstractmethod
    def forward(self, pairs: Tensor) -> Tensor:
        """[B, 1 + N], users and N items each, to scores [B, N]."""

    @abstractmethod
    def all_scores(self, users: Tensor, history: Tensor | None = None) -> Tensor:
        """[B] users, and what they chose [B, length], to [B, I]."""

    @property
    def length(self) -> int:
        """How many of a user's last items are looked at; 0: none."""
        return 0

    def blocks(self) -> list[Block]:
        return [Block(name, module, "backbone", f"{name}.") for name, module in self.named_children()]

    def example(self) -> Tensor:
        return torch.zeros(1, 2, dtype=torch.int64, device=next(self.parameters()).device)


class Factors(Recommender):
    """Matrix factorisation: score(u, i) = ⟨p_u, q_i⟩ (Koren, Bell and Volinsky 2009, equation 1)."""

    users: nn.Module
    items: nn.Module

    def parts(self, facts: dict[str, Any]) -> list[tuple[str, Callable[[], nn.Module]]]:
        return [(part, lambda part=part: _vectors(facts, part, facts["width"])) for part in ("users", "items")]

    def user_vectors(self, users: Tensor) -> Tensor:
        """[B] to [B, D]."""
        return self.users(users)

    def item_vectors(self, items: Tensor | None) -> Tensor:
        """[...] to [..., D]; of all items [I, D]."""
        return self.items(items)

    def forward(self, pairs: Tensor) -> Tensor:
        # Not as matrices: thousands of products of one row and a few are slower than numbers one by one.
        return (self.user_vectors(pairs[:, 0]).unsqueeze(1) * self.item_vectors(pairs[:, 1:])).sum(-1)

    def all_scores(self, users: Tensor, history: Tensor | None = None) -> Tensor:
        return self.user_vectors(users) @ self.item_vectors(None).T


class Towers(Factors):
    """Two towers: a perceptron above the vectors of each side (Covington, Adams and Sargin 2016; Yi et al. 2019).

    What is known of users and items stands in tables of whole numbers, `user_features` [U, C] and `item_features` [I, C], and is
    added to their own vectors: of each field the mean of its values' vectors.
    """

    user_features: Tensor
    item_features: Tensor

    def __init__(self, described: dict[str, Any], seed: int) -> None:
        super().__init__(described, seed)
        facts = described["recommender"]
        for side in SIDES:
            columns = sum(facts.get(f"{side}_fields", {}).get("counts", []))
            table = torch.zeros(facts[f"{side}s"], columns, dtype=torch.int32)
            self.register_buffer(f"{side}_features", table)

    def parts(self, facts: dict[str, Any]) -> list[tuple[str, Callable[[], nn.Module]]]:
        sizes = [facts["width"], *facts["hidden"]]
        known = {side: facts.get(f"{side}_fields") for side in SIDES}
        abouts: list[tuple[str, Callable[[], nn.Module]]] = [
            (f"{side}_about", lambda fields=fields: Embeddings(fields["sizes"], fields["counts"], facts["width"] - 1))
            for side, fields in known.items()
            if fields is not None
        ]
        return [
            *super().parts(facts),
            *abouts,
            ("user_tower", lambda: _perceptron(sizes)),
            ("item_tower", lambda: _perceptron(sizes)),
        ]

    user_tower: nn.Module
    item_tower: nn.Module

    def user_vectors(self, users: Tensor) -> Tensor:
        return self.user_tower(self.users(users) + self._about("user", self.user_features[users]))

    def item_vectors(self, items: Tensor | None) -> Tensor:
        features = self.item_features if items is None else self.item_features[items]
        return self.item_tower(self.items(items) + self._about("item", features))

    def _about(self, side: str, features: Tensor) -> Tensor | float:
        """[..., C] to [..., D]; nothing where nothing is known."""
        about = dict(self.named_children()).get(f"{side}_about")
        if about is None:
            return 0.0
        return about(features.flatten(0, -2)).sum(1).unflatten(0, features.shape[:-1])


class NeuralFactors(Recommender):
    """NeuMF: a product of vectors and a perceptron over others, added up with weights (He et al. 2017, section 3.4)."""

    users: nn.Module
    items: nn.Module
    deep: nn.Module
    out: nn.Module

    def parts(self, facts: dict[str, Any]) -> list[tuple[str, Callable[[], nn.Module]]]:
        width, hidden = facts["width"], facts["hidden"]
        # Both kinds of vectors side by side, so that one look-up finds them.
        return [
            ("users", lambda: _vectors(facts, "users", 2 * width)),
            ("items", lambda: _vectors(facts, "items", 2 * width)),
            ("deep", lambda: nn.Sequential(_perceptron([2 * width, *hidden]), nn.ReLU())),
            ("out", lambda: nn.Linear(width + hidden[-1], 1, bias=False)),
        ]

    def forward(self, pairs: Tensor) -> Tensor:
        return self._scores(self.users(pairs[:, :1]), self.items(pairs[:, 1:]))

    def all_scores(self, users: Tensor, history: Tensor | None = None) -> Tensor:
        items = self.items(None)
        size = max(1, PAIRS // len(items))
        return torch.cat([self._scores(self.users(part)[:, None], items[None]) for part in users.split(size)])

    def _scores(self, users: Tensor, items: Tensor) -> Tensor:
        """[B, 1, 2 D] and [B or 1, N, 2 D] to [B, N]."""
        (left, deep_left), (right, deep_right) = users.chunk(2, dim=-1), items.chunk(2, dim=-1)
        shape = (len(users), items.shape[1], -1)
        both = torch.cat([deep_left.expand(*shape), deep_right.expand(*shape)], dim=-1)
        return self.out(torch.cat([left * right, self.deep(both)], dim=-1)).squeeze(-1)


def _vectors(facts: dict[str, Any], part: str, width: int) -> Vectors:
    return Vectors(facts[part], width, facts.get("rows"), facts.get("sparse", False))


def _perceptron(sizes: list[int]) -> nn.Sequential:
    layers: list[nn.Module] = []
    for before, after in zip(sizes, sizes[1:]):
        layers += [nn.ReLU(), nn.Linear(before, after)] if layers else [nn.Linear(before, after)]
    return nn.Sequential(*layers)


def factors(*, width: Positive = 64, rows: Positive | None = None, sparse: bool = False) -> dict[str, Any]:
    """The options of a matrix factorisation; `rows` and `sparse`, here and below, are for large tables: see `Table`."""
    return {"width": width, "rows": rows, "sparse": sparse}


def two_tower(
    *,
    width: Positive = 64,
    hidden: tuple[Positive, ...] = (128, 64),
    features: bool = True,
    rows: Positive | None = None,
    sparse: bool = False,
) -> dict[str, Any]:
    """The options of two towers; the last of `hidden` is the width of what is multiplied; `features`: what is known of users and
    items is read, too."""
    return {"width": width, "hidden": list(hidden), "features": features, "rows": rows, "sparse": sparse}


def neumf(
    *,
    width: Positive = 32,
    hidden: tuple[Positive, ...] = (64, 32),
    rows: Positive | None = None,
    sparse: bool = False,
) -> dict[str, Any]:
    """The options of NeuMF."""
    return {"width": width, "hidden": list(hidden), "rows": rows, "sparse": sparse}
