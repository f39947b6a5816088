"""Networks that foretell a click from who, what and when: fields with embeddings, and how their features meet.

Shapes: B rows, C numbers of a row, F fields, D the width of an embedding.

Each is a backbone of named blocks: the embeddings, then one block that lets the fields meet; a dense head makes the logits of
what it gives. Logistic regression (Richardson et al. 2007), factorisation machines (Rendle 2010), Wide & Deep (Cheng et al.
2016), DeepFM (Guo et al. 2017), DCN-v2 (Wang et al. 2021), DLRM (Naumov et al. 2019, without dense features).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Annotated, Any

import torch
from pydantic import Field
from torch import Tensor, nn

from tunewright.models.core.layers import Shape
from tunewright.models.recommendation.embedding_table import Table

Rows = Annotated[int, Field(gt=0)] | None
# The standard deviation of first embeddings.
START = 0.05


class Embeddings(nn.Module):
    """[B, C] whole numbers to [B, F, D + 1]: each field's vector, and behind it a number of its own, the linear part.

    Args:
        sizes: for each field how many values it has; 0 stands for one that was not seen in training.
        counts: for each field how many of the C numbers are its own: 1, or as many as it has values at most, filled up with −1.
            Their vectors are averaged.
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

    def forward(self, values: Tensor) -> Tensor:
        values = values.long()
        there = (values >= 0).unsqueeze(-1)
        # One table for all fields: one look-up, and one gradient.
        found = self.vectors(values.clamp(min=0) + self.starts) * there
        if max(self.counts) == 1:
            return found
        parts, known = found.split(self.counts, dim=1), there.split(self.counts, dim=1)
        means = [part.sum(1) / here.sum(1).clamp(min=1) for part, here in zip(parts, known, strict=True)]
        return torch.stack(means, dim=1)


def _running(sizes: Sequence[int]) -> list[int]:
    return [sum(sizes[:index]) for index in range(len(sizes))]


class Linear(nn.Module):
    """[B, F, D + 1] to [B, 1]: the sum of the linear parts."""

    def forward(self, fields: Tensor) -> Tensor:
        return fields[..., -1].sum(1, keepdim=True)


class Pairs(nn.Module):
    """[B, F, D + 1] to [B, 1]: the linear part and Σ_{i<j} ⟨v_i, v_j⟩ = ½ ‖Σ v‖² − ½ Σ ‖v‖² (Rendle 2010, lemma 3.1)."""

    def forward(self, fields: Tensor) -> Tensor:
        vectors = fields[..., :-1]
        pairs = (vectors.sum(1).square() - vectors.square().sum(1)).sum(1, keepdim=True) / 2
        return fields[..., -1].sum(1, keepdim=True) + pairs


class Deep(nn.Module):
    """[B, F, D + 1] to [B, H]: a perceptron over all vectors side by side."""

    def __init__(self, fields: int, width: int, hidden: Sequence[int], dropout: float) -> None:
        super().__init__()
        self.layers = _perceptron(fields * width, hidden, dropout)

    def forward(self, fields: Tensor) -> Tensor:
        return self.layers(fields[..., :-1].flatten(1))


class Cross(nn.Module):
    """x_{l+1} = x_0 ⊙ (W x_l + b) + x_l over all vectors side by side (Wang et al. 2021, equation 1): [B, F · D]."""

    def __init__(self, fields: int, width: int, depth: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(fields * width, fields * width) for _ in range(depth))

    def forward(self, fields: Tensor) -> Tensor:
        first = found = fields[..., :-1].flatten(1)
        for layer in self.layers:
            found = first * layer(found) + found
        return found


class Dots(nn.Module):
    """[B, F, D + 1] to [B, H]: a perceptron over ⟨v_i, v_j⟩ of all pairs of fields."""

    pairs: Tensor

    def __init__(self, fields: int, hidden: Sequence[int], dropout: float) -> None:
        super().__init__()
        self.register_buffer("pairs", torch.triu_indices(fields, fields, offset=1), persistent=False)
        self.layers = _perceptron(fields * (fields - 1) // 2, hidden, dropout)

    def forward(self, fields: Tensor) -> Tensor:
        vectors = fields[..., :-1]
        products = vectors @ vectors.transpose(1, 2)
        return self.layers(products[:, self.pairs[0], self.pairs[1]])


class SideBySide(nn.Module):
    """What several parts make of the same, one behind the other."""

    def __init__(self, **parts: nn.Module) -> None:
        super().__init__()
        self.parts = nn.ModuleDict(parts)

    def forward(self, fields: Tensor) -> Tensor:
        return torch.cat([part(fields) for part in self.parts.values()], dim=1)


def _perceptron(inputs: int, hidden: Sequence[int], dropout: float) -> nn.Sequential:
    layers: list[nn.Module] = []
    for units in hidden:
        layers += [nn.Linear(inputs, units), nn.ReLU(), *([nn.Dropout(dropout)] if dropout else [])]
        inputs = units
    return nn.Sequential(*layers)


Blocks = list[tuple[str, Callable[[], nn.Module]]]


def _blocks(
    sizes: Sequence[int],
    counts: Sequence[int],
    width: int,
    meet: Callable[[], nn.Module],
    rows: int | None,
    sparse: bool,
) -> Blocks:
    return [("embeddings", lambda: Embeddings(sizes, counts, width, rows, sparse)), ("meet", meet)]


def logistic(
    shape: Shape, *, sizes: tuple[int, ...], counts: tuple[int, ...], rows: Rows = None, sparse: bool = False
) -> Blocks:
    """Named blocks of a logistic regression. `sizes` and `counts`, here and below, come from the data: see `Embeddings`; with
    `rows` the table of embeddings is no larger, and with `sparse` its gradient is of what was looked up: see `Table`."""
    return _blocks(sizes, counts, 0, Linear, rows, sparse)


def fm(
    shape: Shape,
    *,
    sizes: tuple[int, ...],
    counts: tuple[int, ...],
    width: int = 16,
    rows: Rows = None,
    sparse: bool = False,
) -> Blocks:
    """Named blocks of a factorisation machine."""
    return _blocks(sizes, counts, width, Pairs, rows, sparse)


def wide_deep(
    shape: Shape,
    *,
    sizes: tuple[int, ...],
    counts: tuple[int, ...],
    width: int = 16,
    hidden: tuple[int, ...] = (128, 64),
    dropout: float = 0.1,
    rows: Rows = None,
    sparse: bool = False,
) -> Blocks:
    """Named blocks of Wide & Deep."""

    def meet() -> nn.Module:
        return SideBySide(wide=Linear(), deep=Deep(len(sizes), width, hidden, dropout))

    return _blocks(sizes, counts, width, meet, rows, sparse)


def deepfm(
    shape: Shape,
    *,
    sizes: tuple[int, ...],
    counts: tuple[int, ...],
    width: int = 16,
    hidden: tuple[int, ...] = (128, 64),
    dropout: float = 0.1,
    rows: Rows = None,
    sparse: bool = False,
) -> Blocks:
    """Named blocks of DeepFM."""

    def meet() -> nn.Module:
        return SideBySide(pairs=Pairs(), deep=Deep(len(sizes), width, hidden, dropout))

    return _blocks(sizes, counts, width, meet, rows, sparse)


def dcn_v2(
    shape: Shape,
    *,
    sizes: tuple[int, ...],
    counts: tuple[int, ...],
    width: int = 16,
    depth: int = 2,
    hidden: tuple[int, ...] = (128, 64),
    dropout: float = 0.1,
    rows: Rows = None,
    sparse: bool = False,
) -> Blocks:
    """Named blocks of DCN-v2 with its deep part beside the crosses."""

    def meet() -> nn.Module:
        return SideBySide(cross=Cross(len(sizes), width, depth), deep=Deep(len(sizes), width, hidden, dropout))

    return _blocks(sizes, counts, width, meet, rows, sparse)


def dlrm(
    shape: Shape,
    *,
    sizes: tuple[int, ...],
    counts: tuple[int, ...],
    width: int = 16,
    hidden: tuple[int, ...] = (128, 64),
    dropout: float = 0.1,
    rows: Rows = None,
    sparse: bool = False,
) -> Blocks:
    """Named blocks of DLRM."""
    return _blocks(sizes, counts, width, lambda: Dots(len(sizes), hidden, dropout), rows, sparse)


CLICK_MODELS: dict[str, Callable[..., Any]] = {
    "logistic": logistic,
    "fm": fm,
    "wide_deep": wide_deep,
    "deepfm": deepfm,
    "dcn_v2": dcn_v2,
    "dlrm": dlrm,
}
