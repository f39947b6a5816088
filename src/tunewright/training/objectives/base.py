"""Define objectives: the sum of a loss over a batch, and the weight to divide it by.

Sum and weight are separate so that gradients can be accumulated over micro-batches of any size: the loss of a step is
Σ sums / Σ weights, the same as for one large batch.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol, runtime_checkable

import torch
from jaxtyping import Float, Shaped
from torch import Tensor, nn

from tunewright.data.batches.batch import Batch, Examples, Inputs
from tunewright.data.prepared import Prepared
from tunewright.errors import RecipeError
from tunewright.recipe.schema import Train

Scalar = Float[Tensor, ""]


@runtime_checkable
class StepObjective(Protocol):
    """Compute the loss of a step as a sum and a weight."""

    def weight(self, batch: Batch) -> float:
        """Return what the batch's sum is divided by, such as its number of examples."""
        ...

    def loss_sum(self, model: Callable[[Inputs], Tensor], batch: Batch, epoch: int) -> Scalar:
        """Return the sum of the batch's losses."""
        ...


@runtime_checkable
class LanguageModel(Protocol):
    """Give a token's logits, and the states that they are computed from: the losses of tokens need both."""

    reduced: bool
    """Whether it computes in bfloat16."""

    @property
    def output_weight(self) -> Tensor | None:
        """The matrix [vocab, features] whose product with `hidden` is the logits; None: the head is more than that."""
        ...

    def hidden(self, inputs: dict[str, Tensor]) -> Tensor:
        """Return the states [batch, time, features] that the head gets."""
        ...

    def __call__(self, inputs: dict[str, Tensor]) -> Tensor:
        """Return the logits [batch, time, vocab]."""
        ...


@runtime_checkable
class AlignedModel(Protocol):
    """Give the log probabilities of classes at each step of a recording, which CTC aligns with a text."""

    def moments(self, lengths: Tensor) -> Tensor:
        """Return the number of output steps for each number of input frames."""
        ...

    def __call__(self, inputs: dict[str, Tensor]) -> Tensor:
        """Return log probabilities [batch, steps, classes]."""
        ...


# (outputs, target [batch], class weights [classes] or None, label smoothing) → the sum of the losses.
LossSum = Callable[[Shaped[Tensor, "..."], Shaped[Tensor, "..."], Float[Tensor, " classes"] | None, float], Scalar]


@dataclass(frozen=True, kw_only=True)
class Objective:
    """Hold the objective of a stage, before it is bound to a seed and a device."""

    name: str
    supervised: bool
    """Whether it needs labels."""
    bind: Callable[[int, torch.device], StepObjective]
    """(seed, device) → what the training loop minimises."""
    refer: Callable[[nn.Module, Examples], Tensor] | None = None
    """(network, examples) → the reference that the loss compares with, computed before the first step; None: there is none."""
    takes_soft_targets: bool = False
    """Whether a target may be the shares of several classes."""


@dataclass(frozen=True, kw_only=True)
class LabelSettings:
    """Hold what a supervised objective is built from besides its options: the target and the recipe's settings for classes."""

    train: Train
    classes: Sequence[str] | None
    """The target's classes; None when the target is a number or there is none."""
    prepared: Prepared

    @property
    def multilabel(self) -> bool:
        """Whether an example has several classes."""
        return self.prepared.manifest.target_kind == "labels"


@dataclass(frozen=True, kw_only=True)
class NamedObjective:
    """List an objective under its name, as installed packages do in the entry point group `tunewright.objectives`."""

    name: str
    target: Literal["classes", "numbers"] | None
    """The kind of target that it needs; None: no labels."""
    build: Callable[..., Objective]
    """(label settings, *, options of the recipe) → the objective."""


def wrong_size(size: int, expected: str) -> RecipeError:
    """Return the error for a network whose output does not fit the objective."""
    return RecipeError(
        "the network's output has another size than the objective asks for",
        place="model.head",
        found=f"{size} outputs",
        expected=expected,
        fix="end the head with {dense: auto}",
    )
