"""Define SASRec: predict the next item from the last ones by causal self-attention (Kang and McAuley 2018).

Items in sequences are counted from 1; 0 is padding, at the start of shorter sequences.
"""

from __future__ import annotations

from typing import Annotated

import torch
from jaxtyping import Bool, Float, Int
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from tunewright.models.core.spec import Facts
from tunewright.models.recommendation.base import Parts, Recommender, Users, Vectors
from tunewright.recipe.schema import LayerCount

Positive = Annotated[int, Field(gt=0)]
Hidden = Float[Tensor, "batch time features"]


class Layer(nn.Module):
    """Apply attention and two dense layers, each after a norm and with a residual connection (section III-B)."""

    def __init__(self, width: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.heads = heads
        self.before, self.between = nn.LayerNorm(width), nn.LayerNorm(width)
        self.query_key_value, self.mixed = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.inner, self.outer = nn.Linear(width, width), nn.Linear(width, width)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Hidden, seen: Bool[Tensor, "batch 1 time time"]) -> Hidden:
        parts = self.query_key_value(self.before(x)).unflatten(2, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        found = F.scaled_dot_product_attention(parts[0], parts[1], parts[2], attn_mask=seen)
        x = x + self.dropout(self.mixed(found.transpose(1, 2).flatten(2)))
        return x + self.dropout(self.outer(F.relu(self.inner(self.between(x)))))


class NextItem(Recommender):
    """Build SASRec from its spec."""

    items: Vectors
    places: Vectors
    dropout: nn.Module
    norm: nn.Module

    def parts(self, facts: Facts) -> Parts:
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
        return self.spec.facts["length"]

    def forward(self, pairs: Int[Tensor, "batch 2 time"]) -> Hidden:
        """Compute a vector of the expected next item at each position.

        Args:
            pairs: the items, which are the input, and the items that follow them, which are not.
        """
        items = pairs[:, 0]
        there = items > 0
        x = self.items((items - 1).clamp(min=0)) * there[..., None] + self.places()
        x = self.dropout(x)
        back = torch.ones(items.shape[1], items.shape[1], dtype=torch.bool, device=items.device).tril()
        # Each position attends to itself, so that none attends to nothing.
        own = torch.eye(items.shape[1], dtype=torch.bool, device=items.device)
        seen = (back & there[:, None] | own)[:, None]
        for name, part in self.named_children():
            if name.startswith("layer"):
                x = part(x, seen)
        return self.norm(x)

    def all_scores(
        self, users: Users, history: Int[Tensor, "batch length"] | None = None
    ) -> Float[Tensor, "batch items"]:
        assert history is not None
        return self(torch.stack([history, history], 1))[:, -1] @ self.items().T

    def example(self) -> Int[Tensor, "1 2 {self.length}"]:
        return torch.zeros(1, 2, self.length, dtype=torch.int64, device=next(self.parameters()).device)


def sasrec(
    *,
    width: Positive = 64,
    layers: LayerCount = 2,
    heads: Positive = 2,
    length: Positive = 50,
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.2,
) -> Facts:
    """Return the options of SASRec.

    Args:
        length: the number of a user's last items that are the input.
    """
    return {"width": width, "layers": layers, "heads": heads, "length": length, "dropout": dropout}
