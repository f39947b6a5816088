"""Define networks that score every item for a user. Users and items are ids counted from 0."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar

import torch
from jaxtyping import Float, Int
from pydantic import Field
from torch import Tensor, nn

from tunewright.models.core.layers import seeded
from tunewright.models.core.network import Block, Network
from tunewright.models.core.spec import Facts, NetworkSpec
from tunewright.models.recommendation.ctr import Embeddings
from tunewright.models.recommendation.embedding_table import Table
from tunewright.random import mix

SIDES = ("user", "item")
# How many pairs a perceptron scores at once where all items are scored.
PAIRS = 2**18

Positive = Annotated[int, Field(gt=0)]
Users = Int[Tensor, " batch"]
Parts = list[tuple[str, Callable[[], nn.Module]]]
"""Names and makers of a network's blocks."""


class Vectors(nn.Module):
    """Look up vectors that start normal with a standard deviation of √(2 / (rows + features)) (Glorot and Bengio 2010)."""

    def __init__(self, count: int, width: int, rows: int | None = None, sparse: bool = False) -> None:
        super().__init__()
        self.table = Table(count, width, rows, sparse=sparse)
        nn.init.xavier_normal_(self.table.weight)

    def forward(self, numbers: Int[Tensor, "*ids"] | None = None) -> Float[Tensor, "*_ features"]:
        """Return the vectors of some ids, or of all, [count, features]."""
        return self.table(numbers)


@dataclass(frozen=True)
class RecommenderSpec(NetworkSpec):
    """Hold what a recommender is made from."""

    family: ClassVar[str] = "recommender"

    facts: dict[str, Any]
    """{"name", "users", "items", …}: which of `models/recommendation/registry.py`'s, its sizes and its own options."""

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> RecommenderSpec:
        return cls(values[cls.family])

    def to_json(self) -> dict[str, Any]:
        return {self.family: self.facts}


class Recommender(Network):
    """Define the interface of recommenders. The blocks that are frozen or trained are the modules of `parts`."""

    def __init__(self, spec: RecommenderSpec, seed: int) -> None:
        super().__init__()
        self._spec = spec
        for name, make in self.parts(spec.facts):
            self.add_module(name, seeded(mix(seed, name), make))

    @property
    def spec(self) -> RecommenderSpec:
        return self._spec

    @abstractmethod
    def parts(self, facts: Facts) -> Parts:
        """Return names and makers of the blocks.

        Args:
            facts: the part "recommender" of the spec.
        """

    @abstractmethod
    def forward(self, pairs: Int[Tensor, "batch ..."]) -> Float[Tensor, "batch ..."]:
        """Score the items of each user.

        Args:
            pairs: [batch, 1 + n], a user and n items in each row.

        Returns:
            [batch, n].
        """

    @abstractmethod
    def all_scores(
        self, users: Users, history: Int[Tensor, "batch length"] | None = None
    ) -> Float[Tensor, "batch items"]:
        """Score all items.

        Args:
            history: the last items of each user.
        """

    @property
    def length(self) -> int:
        """The number of a user's last items that the network takes as input; 0: none."""
        return 0

    def blocks(self) -> list[Block]:
        return [Block(name, module, "backbone", f"{name}.") for name, module in self.named_children()]

    def example(self) -> Int[Tensor, "1 2"]:
        return torch.zeros(1, 2, dtype=torch.int64, device=next(self.parameters()).device)


class Factors(Recommender):
    """Factorise the matrix of users and items: score(u, i) = ⟨p_u, q_i⟩ (Koren, Bell and Volinsky 2009, equation 1)."""

    users: nn.Module
    items: nn.Module

    def parts(self, facts: Facts) -> Parts:
        return [(part, lambda part=part: _vectors(facts, part, facts["width"])) for part in ("users", "items")]

    def user_vectors(self, users: Users) -> Float[Tensor, "batch features"]:
        """Return the vectors of users."""
        return self.users(users)

    def item_vectors(self, items: Int[Tensor, "*ids"] | None) -> Float[Tensor, "*_ features"]:
        """Return the vectors of some items, or of all, [items, features]."""
        return self.items(items)

    def forward(self, pairs: Int[Tensor, "batch one_and_n"]) -> Float[Tensor, "batch n"]:
        # Element-wise: thousands of matrix products of one row and a few columns are slower.
        return (self.user_vectors(pairs[:, 0]).unsqueeze(1) * self.item_vectors(pairs[:, 1:])).sum(-1)

    def all_scores(
        self, users: Users, history: Int[Tensor, "batch length"] | None = None
    ) -> Float[Tensor, "batch items"]:
        return self.user_vectors(users) @ self.item_vectors(None).T


class Towers(Factors):
    """Apply a perceptron to the vectors of each side (Covington, Adams and Sargin 2016; Yi et al. 2019).

    The features of users and items are categorical values in the buffers `user_features` [users, values] and `item_features`
    [items, values]. For each field the mean of its values' vectors is added to the vector of the user or item.
    """

    user_features: Tensor
    item_features: Tensor

    def __init__(self, spec: RecommenderSpec, seed: int) -> None:
        super().__init__(spec, seed)
        facts = spec.facts
        for side in SIDES:
            columns = sum(facts.get(f"{side}_fields", {}).get("counts", []))
            table = torch.zeros(facts[f"{side}s"], columns, dtype=torch.int32)
            self.register_buffer(f"{side}_features", table)

    def parts(self, facts: Facts) -> Parts:
        sizes = [facts["width"], *facts["hidden"]]
        known = {side: facts.get(f"{side}_fields") for side in SIDES}
        abouts: Parts = [
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

    def user_vectors(self, users: Users) -> Float[Tensor, "batch features"]:
        return self.user_tower(self.users(users) + self._about("user", self.user_features[users]))

    def item_vectors(self, items: Int[Tensor, "*ids"] | None) -> Float[Tensor, "*_ features"]:
        features = self.item_features if items is None else self.item_features[items]
        return self.item_tower(self.items(items) + self._about("item", features))

    def _about(self, side: str, features: Int[Tensor, "*ids values"]) -> Float[Tensor, "*ids features"] | float:
        """Return the sum of the fields' vectors; 0 without features."""
        about = dict(self.named_children()).get(f"{side}_about")
        if about is None:
            return 0.0
        return about(features.flatten(0, -2)).sum(1).unflatten(0, features.shape[:-1])


class NeuralFactors(Recommender):
    """Combine a product of vectors with a perceptron over other vectors: NeuMF (He et al. 2017, section 3.4)."""

    users: nn.Module
    items: nn.Module
    deep: nn.Module
    out: nn.Module

    def parts(self, facts: Facts) -> Parts:
        width, hidden = facts["width"], facts["hidden"]
        # Both kinds of vectors are concatenated in one table, for a single look-up.
        return [
            ("users", lambda: _vectors(facts, "users", 2 * width)),
            ("items", lambda: _vectors(facts, "items", 2 * width)),
            ("deep", lambda: nn.Sequential(_perceptron([2 * width, *hidden]), nn.ReLU())),
            ("out", lambda: nn.Linear(width + hidden[-1], 1, bias=False)),
        ]

    def forward(self, pairs: Int[Tensor, "batch one_and_n"]) -> Float[Tensor, "batch n"]:
        return self._scores(self.users(pairs[:, :1]), self.items(pairs[:, 1:]))

    def all_scores(
        self, users: Users, history: Int[Tensor, "batch length"] | None = None
    ) -> Float[Tensor, "batch items"]:
        items = self.items(None)
        size = max(1, PAIRS // len(items))
        return torch.cat([self._scores(self.users(part)[:, None], items[None]) for part in users.split(size)])

    def _scores(
        self, users: Float[Tensor, "batch 1 features"], items: Float[Tensor, "#batch n features"]
    ) -> Float[Tensor, "batch n"]:
        """Score n items for each user from both kinds of vectors."""
        (left, deep_left), (right, deep_right) = users.chunk(2, dim=-1), items.chunk(2, dim=-1)
        shape = (len(users), items.shape[1], -1)
        both = torch.cat([deep_left.expand(*shape), deep_right.expand(*shape)], dim=-1)
        return self.out(torch.cat([left * right, self.deep(both)], dim=-1)).squeeze(-1)


def _vectors(facts: Facts, part: str, width: int) -> Vectors:
    return Vectors(facts[part], width, facts.get("rows"), facts.get("sparse", False))


def _perceptron(sizes: list[int]) -> nn.Sequential:
    layers: list[nn.Module] = []
    for before, after in zip(sizes, sizes[1:]):
        layers += [nn.ReLU(), nn.Linear(before, after)] if layers else [nn.Linear(before, after)]
    return nn.Sequential(*layers)


def factors(*, width: Positive = 64, rows: Positive | None = None, sparse: bool = False) -> Facts:
    """Return the options of a matrix factorisation; `rows` and `sparse`, here and below, are for large tables: see `Table`."""
    return {"width": width, "rows": rows, "sparse": sparse}


def two_tower(
    *,
    width: Positive = 64,
    hidden: tuple[Positive, ...] = (128, 64),
    features: bool = True,
    rows: Positive | None = None,
    sparse: bool = False,
) -> Facts:
    """Return the options of two towers.

    Args:
        hidden: the sizes of each perceptron's layers; the last one is the width of the vectors that are multiplied.
        features: whether the features of users and items are used.
    """
    return {"width": width, "hidden": list(hidden), "features": features, "rows": rows, "sparse": sparse}


def neumf(
    *,
    width: Positive = 32,
    hidden: tuple[Positive, ...] = (64, 32),
    rows: Positive | None = None,
    sparse: bool = False,
) -> Facts:
    """Return the options of NeuMF."""
    return {"width": width, "hidden": list(hidden), "rows": rows, "sparse": sparse}
