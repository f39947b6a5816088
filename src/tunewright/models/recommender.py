"""Networks that give every item a score for a user: vectors of users and items, and their products.

Shapes: B users or pairs, U users, I items, D the width of a vector. Users and items are whole numbers from 0.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any

import torch
from pydantic import Field
from torch import Tensor, nn

from tunewright.models.layers import seeded
from tunewright.models.network import AnyNetwork, Block
from tunewright.random import mix
from tunewright.recipe.named import check_options, choose, parse_named
from tunewright.recipe.schema import Named


class Vectors(nn.Module):
    """A table of vectors, normal about 0 with a standard deviation of √(2 / (rows + D)) (Glorot and Bengio 2010)."""

    def __init__(self, rows: int, width: int) -> None:
        super().__init__()
        self.table = nn.Embedding(rows, width)
        nn.init.xavier_normal_(self.table.weight)

    def forward(self, numbers: Tensor) -> Tensor:
        return self.table(numbers)


class Factors(AnyNetwork):
    """Matrix factorisation: score(u, i) = ⟨p_u, q_i⟩ (Koren, Bell and Volinsky 2009, equation 1)."""

    def __init__(self, described: dict[str, Any], seed: int) -> None:
        super().__init__()
        self.described = described
        facts = described["recommender"]
        self.users = seeded(mix(seed, "users"), lambda: Vectors(facts["users"], facts["width"]))
        self.items = seeded(mix(seed, "items"), lambda: Vectors(facts["items"], facts["width"]))

    def forward(self, pairs: Tensor) -> Tensor:
        """[B, 2] users and items to [B] scores; of [B, 1 + N], users and N items each, [B, N]."""
        users = self.users(pairs[:, 0])
        found = self.items(pairs[:, 1:])
        return torch.einsum("bd,bnd->bn", users, found).squeeze(1)

    def all_scores(self, users: Tensor) -> Tensor:
        """[B] users to [B, I]."""
        items: Any = self.items
        return self.users(users) @ items.table.weight.T

    def blocks(self) -> list[Block]:
        return [Block(name, module, "backbone", f"{name}.") for name, module in self.named_children()]

    def example(self) -> Tensor:
        return torch.zeros(1, 2, dtype=torch.int64, device=next(self.parameters()).device)


def factors(*, width: Annotated[int, Field(gt=0)] = 64) -> dict[str, Any]:
    """The options of a matrix factorisation."""
    return {"width": width}


RECOMMENDERS: dict[str, Callable[..., dict[str, Any]]] = {"factors": factors}


def describe_recommender(named: Named, *, users: int, items: int) -> dict[str, Any]:
    """The description of the network that a recipe names: {"recommender": {"name", "users", "items", "width"}}.

    Raises:
        RecipeError: no such network or option.
    """
    name, given = parse_named(named, "model.backbone")
    make = choose(RECOMMENDERS, name, "model.backbone")
    options = make(**check_options(make, given, f"model.backbone.{name}"))
    return {"recommender": {"name": name, "users": users, "items": items, **options}}


def build_recommender(described: dict[str, Any], *, seed: int) -> Factors:
    """The network of a description."""
    return Factors(described, seed)
