"""SASRec: the next item from the last ones, by self-attention that looks back alone (Kang and McAuley 2018).

Shapes: B users, L the items that are looked at, D the width, I items. Items in sequences are counted from 1; 0 is none, and stands
in front where a user has fewer.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from tunewright.models.recommendation.base import Recommender, Vectors
from tunewright.recipe.schema import LayerCount

Positive = Annotated[int, Field(gt=0)]


class Layer(nn.Module):
    """Attention and two layers at each place, each behind a norm and beside what it adds to (section III-B). [B, L, D] to the
    same."""

    def __init__(self, width: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.heads = heads
        self.before, self.between = nn.LayerNorm(width), nn.LayerNorm(width)
        self.query_key_value, self.mixed = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.inner, self.outer = nn.Linear(width, width), nn.Linear(width, width)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor, seen: Tensor) -> Tensor:
        parts = self.query_key_value(self.before(x)).unflatten(2, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        found = F.scaled_dot_product_attention(parts[0], parts[1], parts[2], attn_mask=seen)
        x = x + self.dropout(self.mixed(found.transpose(1, 2).flatten(2)))
        return x + self.dropout(self.outer(F.relu(self.inner(self.between(x)))))


class NextItem(Recommender):
    """The network of a description."""

    items: Vectors
    places: Vectors
    dropout: nn.Module
    norm: nn.Module

    def parts(self, facts: dict[str, Any]) -> list[tuple[str, Callable[[], nn.Module]]]:
        width = facts["width"]
        layers = [
            (f"layer{number}", lambda: Layer(width, facts["heads"], facts["dropout"]))
            for number in range(1, facts["layers"] + 1)
        ]
        return [
            ("items", lambda: Vectors(facts["items"], width)),
            ("places", lambda: Vectors(facts["length"], width)),
            ("dropout", lambda: nn.Dropout(facts["dropout"])),
            *layers,
            ("norm", lambda: nn.LayerNorm(width)),
        ]

    @property
    def length(self) -> int:
        return self.spec["recommender"]["length"]

    def forward(self, pairs: Tensor) -> Tensor:
        """[B, 2, L], items and those that follow them, of which the first are read: to [B, L, D], what is expected next."""
        items = pairs[:, 0]
        there = items > 0
        x = self.items((items - 1).clamp(min=0)) * there[..., None] + self.places()
        x = self.dropout(x)
        back = torch.ones(items.shape[1], items.shape[1], dtype=torch.bool, device=items.device).tril()
        # Each place sees itself, so that there is something to look at where nothing was chosen yet.
        own = torch.eye(items.shape[1], dtype=torch.bool, device=items.device)
        seen = (back & there[:, None] | own)[:, None]
        for name, part in self.named_children():
            if name.startswith("layer"):
                x = part(x, seen)
        return self.norm(x)

    def all_scores(self, users: Tensor, history: Tensor | None = None) -> Tensor:
        assert history is not None
        return self(torch.stack([history, history], 1))[:, -1] @ self.items().T

    def example(self) -> Tensor:
        return torch.zeros(1, 2, self.length, dtype=torch.int64, device=next(self.parameters()).device)


def sasrec(
    *,
    width: Positive = 64,
    layers: LayerCount = 2,
    heads: Positive = 2,
    length: Positive = 50,
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.2,
) -> dict[str, Any]:
    """The options: `length`, how many of a user's last items are looked at."""
    return {"width": width, "layers": layers, "heads": heads, "length": length, "dropout": dropout}
