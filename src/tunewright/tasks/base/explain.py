"""What of each kind of input is a unit, what takes an absent unit's place, and which number of the answer is explained.

texts: tokens, behind [MASK], or the mean of all embeddings where the tokenizer has none. Pictures: patches, in their own median
colour. Rows: columns, at the training mean, or no category. Fields of clicks: columns, unknown. Sound: tenths of a second, as the
recording's quietest one. Histories: the items chosen before, not chosen.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from tunewright.evaluation.attribution import Explained
from tunewright.models.core.network import Network
from tunewright.tasks.base.encoders import Encoders
from tunewright.tasks.base.targets import Quantity

AT_ONCE = 64
# A picture is divided into so many patches each way, at most.
GRID = 8
# Hundredths of a second in a unit of sound.
MOMENT = 10


@dataclass(frozen=True, kw_only=True)
class Question:
    """What is asked of a model about one row."""

    explained: Explained
    answer: Sequence[str]
    """What the model says, for people: a phrase, and what stands for its {}."""
    usual: str
    """The method of `evaluation/attribution.py` that fits such inputs."""
    look: Literal["units", "text"] = "units"
    """text: the units are pieces of a running text."""
    shape: tuple[int, int] | None = None
    """Of a picture: its rows and columns of patches."""

    @property
    def said(self) -> str:
        """The answer in words."""
        return self.answer[0].format(*self.answer[1:])


def explained_quantity(
    network: Network, preprocessor: Encoders, inputs: Any, wanted: str | None
) -> tuple[Quantity, list[str], list[str]]:
    """Return (outputs [B, K] → f [B], the answer, the name of f) for a model with a target column.

    Raises:
        DataError: there is no such class.
    """
    target = preprocessor.column_target
    assert target is not None
    with torch.inference_mode():
        outputs = network(inputs)
    return target.explained(outputs, wanted)


def in_chunks(compute: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
    """Return the same for any number of rows, a few at once, without gradients."""

    def value(present: Tensor) -> Tensor:
        with torch.no_grad():
            return torch.cat([compute(part).detach() for part in present.split(AT_ONCE)])

    return value


# Pictures, rows and sound: numbers, between which there is a way


def numeric_question(
    whole: Tensor, nothing: Tensor, group: Tensor, count: int, f: Callable[[Tensor], Tensor]
) -> tuple[Callable[[Tensor], Tensor], Callable[[Tensor], Tensor]]:
    """`value` and `along` for an input [...] whose elements belong to units.

    Args:
        group: [...] the unit of each element, −1 where an element is always there.
        f: inputs [B, ...] → [B].
    """
    place = group.clamp(min=0)

    def compute(present: Tensor) -> Tensor:
        return f(torch.where(present[:, place] | (group < 0), whole, nothing))

    def along(places: Tensor) -> Tensor:
        found: list[Tensor] = []
        for part in places.split(AT_ONCE):
            t = part.reshape(-1, *[1] * whole.dim())
            between = torch.where(group < 0, whole, nothing + t * (whole - nothing)).requires_grad_(True)
            (slope,) = torch.autograd.grad(f(between).sum(), between)
            shares = (slope * (whole - nothing) * (group >= 0)).flatten(1)
            found.append(shares.new_zeros(len(part), count).index_add_(1, place.flatten(), shares))
        return torch.cat(found)

    return in_chunks(compute), along


def shorten_value(value: Any) -> str:
    text = f"{value:.4g}" if isinstance(value, float) else str(value)
    return text if len(text) <= 40 else text[:39] + "…"
