"""Which language model a compute budget and a corpus are worth: parameters, tokens, epochs, and a shape for them."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from tunewright.planning.scaling_laws import BESIROGLU, EACH, HOFFMANN, REPEATED, Law

# Parameters of a layer of `gpt`, in squares of its width: four of attention, three times 8/3 of the feed-forward part.
SQUARES = 12
HEAD = 64
# The width for each layer; twice and half of it do about as well (Kaplan et al. 2020, figure 5).
ASPECT = 64
# Between so many parameters a budget is looked through.
FEWEST, MOST = 1e4, 1e13


@dataclass(frozen=True, kw_only=True)
class Size:
    """What a law says."""

    law: Law
    parameters: float
    tokens: float
    """Read in all, repetitions counted."""
    epochs: float
    loss: float
    """Nats a token."""


@dataclass(frozen=True, kw_only=True)
class Shape:
    """A `gpt` of about so many parameters, embeddings not counted."""

    layers: int
    width: int
    heads: int

    @property
    def parameters(self) -> int:
        return SQUARES * self.layers * self.width**2


def sizes(compute: float, unique: float | None) -> list[Size]:
    """What each law says of so many FLOPs; the default law first.

    Args:
        unique: the tokens that there are; None: as many as are wanted, and none is read twice.
    """
    found: list[Size] = []
    for law in (BESIROGLU, HOFFMANN):
        parameters, tokens = law.optimum(compute)
        if unique is None or tokens <= unique:
            found.append(_size(law, parameters, compute, tokens))
    if unique is not None and len(found) < 2:
        # Some tokens must be read again: the best size under the law that knows what that is worth.
        grid = np.geomspace(FEWEST, min(MOST, compute / EACH), 4000)
        losses = [REPEATED.loss(size, compute / EACH / size, unique) for size in grid]
        found.insert(0, _size(REPEATED, float(grid[int(np.argmin(losses))]), compute, unique))
    return found


def _size(law: Law, parameters: float, compute: float, unique: float) -> Size:
    tokens = compute / EACH / parameters
    loss = law.loss(parameters, tokens, unique)
    return Size(law=law, parameters=parameters, tokens=tokens, epochs=max(1.0, tokens / unique), loss=loss)


def shape_for(parameters: float) -> Shape:
    """The shape that comes nearest, with heads of 64 and about 64 of width for each layer."""
    best: tuple[float, Shape] | None = None
    for width in range(HEAD, 20_481, HEAD):
        layers = max(1, round(parameters / (SQUARES * width**2)))
        shape = Shape(layers=layers, width=width, heads=width // HEAD)
        far = abs(math.log(shape.parameters / parameters))
        unusual = abs(math.log(width / layers / ASPECT))
        if best is None or far + unusual / 5 < best[0]:
            best = (far + unusual / 5, shape)
    assert best is not None
    return best[1]
