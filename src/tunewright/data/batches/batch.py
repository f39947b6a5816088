"""A batch, and what a set of examples has to offer."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor

# One tensor [B, ...], or several by name: {"input_ids": [B, T], "attention_mask": [B, T]}.
Inputs = Tensor | dict[str, Tensor]
# One tensor [B, ...], or a list of one for each example where they differ in size; None: there are no labels.
Truth = Any


@dataclass(frozen=True, slots=True)
class Batch:
    """A few examples as tensors.

    inputs: what the network gets; target: [B, ...], a list of B tensors, or None when there is no label; ids: [B] int64, the
    examples' positions in their split, on the CPU.
    """

    inputs: Inputs
    target: Truth
    ids: Tensor
    counts: bool = True
    """False: it is a placeholder, so that this process does what the others do."""

    @property
    def pixels(self) -> Tensor:
        """The inputs of a task whose inputs are one tensor."""
        assert isinstance(self.inputs, Tensor)
        return self.inputs

    @property
    def named(self) -> dict[str, Tensor]:
        """The inputs of a task whose inputs are several tensors by name."""
        assert isinstance(self.inputs, dict)
        return self.inputs


@runtime_checkable
class Examples(Protocol):
    """A split of the data, ready to be drawn from in any order."""

    @property
    def rows(self) -> Tensor:
        """[N] int64: each example's row number in the source, counted from 1, to name it to people."""
        ...

    @property
    def target(self) -> Truth:
        """[N, ...], or a list of N tensors; None when there are no labels."""
        ...

    @property
    def lengths(self) -> Tensor | None:
        """[N] int64: how long each example is in a batch of its own, where examples differ in length and are padded."""
        ...

    @property
    def timed(self) -> bool:
        """Whether lengths are in hundredths of a second."""
        ...

    @property
    def augmented(self) -> bool:
        """Whether a batch of a training epoch is a changed copy, another one each epoch."""
        ...

    def __len__(self) -> int: ...

    def to(self, device: torch.device) -> Examples:
        """Return the same examples, whose batches lie on a device."""
        ...

    def batch(self, ids: Tensor, epoch: int | None = None) -> Batch:
        """Return the examples at the positions `ids` [B] int64.

        Args:
            epoch: the training epoch, counted from 0, that augmentation depends on; None: as they are.
        """
        ...

    def with_augmentation(self, augmentation: Any) -> Examples:
        """Return examples whose training batches are changed by what their modality's `augment` made."""
        ...

    def with_reference(self, reference: Tensor) -> Examples:
        """Return examples with what the network said of them before the training, [N, ...], among the inputs."""
        ...

    def without_features(self) -> Examples:
        """Return the examples as they are read from the data, without the features of frozen blocks."""
        ...

    def one_row_each(self) -> Examples:
        """Return examples of which each is a row of its own, as differential privacy needs it.

        Raises:
            RecipeError: several rows share an example.
        """
        ...


class BaseExamples:
    """What most sets of examples answer alike."""

    @property
    def timed(self) -> bool:
        return False

    def with_augmentation(self, augmentation: Any) -> Any:
        raise NotImplementedError(f"{type(self).__name__} cannot be augmented")

    def with_reference(self, reference: Tensor) -> Any:
        raise NotImplementedError(f"{type(self).__name__} have no reference")

    def without_features(self) -> Any:
        return self

    def one_row_each(self) -> Any:
        return self
