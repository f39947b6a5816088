"""Define networks that predict clicks from categorical fields: their embeddings, and an interaction of the fields.

Dimensions: batch rows, values the numbers of a row, fields, features D + 1 of a field: its vector of width D, and a linear part.

Each is a backbone of named blocks: the embeddings, then one interaction block; a dense head computes logits from its output.
Logistic regression (Richardson et al. 2007), factorisation machines (Rendle 2010), Wide & Deep (Cheng et al.
2016), DeepFM (Guo et al. 2017), DCN-v2 (Wang et al. 2021), DLRM (Naumov et al. 2019, without dense features).
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import KW_ONLY, dataclass
from typing import Annotated, Any

import torch
from jaxtyping import Float, Real
from pydantic import Field
from torch import Tensor, nn

from tunewright.models.core.layers import Shape
from tunewright.models.recommendation.embedding_table import Table

Rows = Annotated[int, Field(gt=0)] | None
# The standard deviation of initial embeddings.
START = 0.05

Fields = Float[Tensor, "batch fields features"]
Output = Float[Tensor, "batch units"]


class Embeddings(nn.Module):
    """Look up the vector of each field, and after it one more number, the field's linear part.

    Args:
        sizes: the number of values of each field; 0 is the value that was not seen in training.
        counts: how many of a row's values belong to each field: 1, or the most that a list has, padded with −1. The vectors of a
            list are averaged.
    """

    starts: Tensor

    def __init__(
        self, sizes: Sequence[int], counts: Sequence[int], width: int, rows: int | None = None, sparse: bool = False
    ) -> None:
        super().__init__()
        self.vectors = Table(sum(sizes), width + 1, rows, sparse=sparse)
        nn.init.normal_(self.vectors.weight, std=START)
        self.counts = list(counts)
        starts = [start for size, count in zip(_running(sizes), counts, strict=True) for start in [size] * count]
        self.register_buffer("starts", torch.tensor(starts), persistent=False)

    def forward(self, values: Real[Tensor, "batch values"]) -> Fields:
        values = values.long()
        there = (values >= 0).unsqueeze(-1)
        # One table for all fields needs one look-up and has one gradient.
        found = self.vectors(values.clamp(min=0) + self.starts) * there
        if max(self.counts) == 1:
            return found
        parts, known = found.split(self.counts, dim=1), there.split(self.counts, dim=1)
        means = [part.sum(1) / here.sum(1).clamp(min=1) for part, here in zip(parts, known, strict=True)]
        return torch.stack(means, dim=1)


def _running(sizes: Sequence[int]) -> list[int]:
    return [sum(sizes[:index]) for index in range(len(sizes))]


class Linear(nn.Module):
    """Sum the linear parts."""

    def forward(self, fields: Fields) -> Float[Tensor, "batch 1"]:
        return fields[..., -1].sum(1, keepdim=True)


class Pairs(nn.Module):
    """Add the linear part and Σ_{i<j} ⟨v_i, v_j⟩ = ½ ‖Σ v‖² − ½ Σ ‖v‖² (Rendle 2010, lemma 3.1)."""

    def forward(self, fields: Fields) -> Float[Tensor, "batch 1"]:
        vectors = fields[..., :-1]
        pairs = (vectors.sum(1).square() - vectors.square().sum(1)).sum(1, keepdim=True) / 2
        return fields[..., -1].sum(1, keepdim=True) + pairs


class Deep(nn.Module):
    """Apply a perceptron to the concatenated vectors."""

    def __init__(self, fields: int, width: int, hidden: Sequence[int], dropout: float) -> None:
        super().__init__()
        self.layers = _perceptron(fields * width, hidden, dropout)

    def forward(self, fields: Fields) -> Output:
        return self.layers(fields[..., :-1].flatten(1))


class Cross(nn.Module):
    """Compute x_{l+1} = x_0 ⊙ (W x_l + b) + x_l on the concatenated vectors (Wang et al. 2021, equation 1)."""

    def __init__(self, fields: int, width: int, depth: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(fields * width, fields * width) for _ in range(depth))

    def forward(self, fields: Fields) -> Output:
        first = found = fields[..., :-1].flatten(1)
        for layer in self.layers:
            found = first * layer(found) + found
        return found


class Dots(nn.Module):
    """Apply a perceptron to ⟨v_i, v_j⟩ of all pairs of fields."""

    pairs: Tensor

    def __init__(self, fields: int, hidden: Sequence[int], dropout: float) -> None:
        super().__init__()
        self.register_buffer("pairs", torch.triu_indices(fields, fields, offset=1), persistent=False)
        self.layers = _perceptron(fields * (fields - 1) // 2, hidden, dropout)

    def forward(self, fields: Fields) -> Output:
        vectors = fields[..., :-1]
        products = vectors @ vectors.transpose(1, 2)
        return self.layers(products[:, self.pairs[0], self.pairs[1]])


class SideBySide(nn.Module):
    """Concatenate the outputs of several modules on the same input."""

    def __init__(self, **parts: nn.Module) -> None:
        super().__init__()
        self.parts = nn.ModuleDict(parts)

    def forward(self, fields: Fields) -> Output:
        return torch.cat([part(fields) for part in self.parts.values()], dim=1)


def _perceptron(inputs: int, hidden: Sequence[int], dropout: float) -> nn.Sequential:
    layers: list[nn.Module] = []
    for units in hidden:
        layers += [nn.Linear(inputs, units), nn.ReLU(), *([nn.Dropout(dropout)] if dropout else [])]
        inputs = units
    return nn.Sequential(*layers)


@dataclass(frozen=True)
class ClickModel(Sequence[tuple[str, Callable[[], nn.Module]]]):
    """Name the blocks of a backbone: the embeddings, then the block where the fields interact.

    Its fields are the options of the recipe; sizes and counts come from the data, see `Embeddings`.

    Args:
        rows: the most rows of the embedding table, see `Table`.
        sparse: whether the table's gradient is sparse.
    """

    shape: Shape
    _: KW_ONLY
    sizes: Sequence[int]
    counts: Sequence[int]
    rows: Rows = None
    sparse: bool = False

    @abstractmethod
    def interaction(self) -> nn.Module:
        """Build the block after the embeddings."""

    def embeddings(self) -> nn.Module:
        """Build the embeddings; without a width, they have the linear part only."""
        return Embeddings(self.sizes, self.counts, getattr(self, "width", 0), self.rows, self.sparse)

    def __getitem__(self, index: Any) -> Any:
        return (("embeddings", self.embeddings), ("meet", self.interaction))[index]

    def __len__(self) -> int:
        return 2


@dataclass(frozen=True, kw_only=True)
class LogisticRegression(ClickModel):
    """Configure a logistic regression."""

    def interaction(self) -> nn.Module:
        return Linear()


@dataclass(frozen=True, kw_only=True)
class FactorisationMachine(ClickModel):
    """Configure a factorisation machine."""

    width: int = 16

    def interaction(self) -> nn.Module:
        return Pairs()


@dataclass(frozen=True, kw_only=True)
class DeepClickModel(ClickModel):
    """Add the options of a perceptron."""

    width: int = 16
    hidden: Sequence[int] = (128, 64)
    dropout: float = 0.1

    def deep(self) -> nn.Module:
        """Build the perceptron over all vectors."""
        return Deep(len(self.sizes), self.width, self.hidden, self.dropout)


@dataclass(frozen=True, kw_only=True)
class WideDeep(DeepClickModel):
    """Configure Wide & Deep."""

    def interaction(self) -> nn.Module:
        return SideBySide(wide=Linear(), deep=self.deep())


@dataclass(frozen=True, kw_only=True)
class DeepFM(DeepClickModel):
    """Configure DeepFM."""

    def interaction(self) -> nn.Module:
        return SideBySide(pairs=Pairs(), deep=self.deep())


@dataclass(frozen=True, kw_only=True)
class DCNv2(DeepClickModel):
    """Configure DCN-v2 with its perceptron in parallel to `depth` cross layers."""

    depth: int = 2

    def interaction(self) -> nn.Module:
        return SideBySide(cross=Cross(len(self.sizes), self.width, self.depth), deep=self.deep())


@dataclass(frozen=True, kw_only=True)
class DLRM(DeepClickModel):
    """Configure DLRM."""

    def interaction(self) -> nn.Module:
        return Dots(len(self.sizes), self.hidden, self.dropout)


CLICK_MODELS: dict[str, type[ClickModel]] = {
    "logistic": LogisticRegression,
    "fm": FactorisationMachine,
    "wide_deep": WideDeep,
    "deepfm": DeepFM,
    "dcn_v2": DCNv2,
    "dlrm": DLRM,
}
