"""What a network is made from: one small type for each kind of network, and what all of them can say."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, replace
from typing import Any, ClassVar

from tunewright.errors import RecipeError
from tunewright.recipe.schema import Layer

Facts = dict[str, Any]
"""Plain data, as a JSON file holds it: a part of a spec, or a network's options."""


class NetworkSpec(ABC):
    """Hold all that a network is made from except its weights: plain data, which a saved model keeps."""

    family: ClassVar[str]
    """The kind of network: the key of its JSON that tells it from the others."""

    @abstractmethod
    def to_json(self) -> dict[str, Any]:
        """Return what `models/families.py` reads it from."""

    def architecture(self) -> dict[str, Any]:
        """Return what the backbone's outputs depend on besides its weights."""
        return self.to_json()

    def accepts(self, shape: tuple[int, ...]) -> bool:
        """Return whether the network reads examples of this shape, as far as the spec says."""
        return True

    def from_scratch(self) -> NetworkSpec:
        """Return the same network without anything of pretrained weights."""
        return self

    def head_only(self) -> NetworkSpec:
        """Return the same head on the raw inputs.

        Raises:
            RecipeError: the family has no such network.
        """
        raise RecipeError(
            "this network has no head that could read the raw inputs",
            place="eval.controls",
            found="head_only",
            expected="from_scratch",
            fix="remove head_only",
        )


@dataclass(frozen=True, kw_only=True)
class SequentialSpec(NetworkSpec):
    """Hold what a network of our own layers is made from."""

    family: ClassVar[str] = "backbone"

    backbone: dict[str, Any]
    """{"layers": [...]}, or the "name" and "options" of an entry of `models/build.py`'s table."""
    head: list[Layer]
    input_shape: tuple[int, ...]
    """Of one example."""
    outputs: int

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> SequentialSpec:
        fields: dict[str, Any] = {**values, "input_shape": tuple(values["input_shape"])}
        return cls(**fields)

    def to_json(self) -> dict[str, Any]:
        return {
            "backbone": self.backbone,
            "head": self.head,
            "input_shape": list(self.input_shape),
            "outputs": self.outputs,
        }

    def architecture(self) -> dict[str, Any]:
        return self.backbone

    def accepts(self, shape: tuple[int, ...]) -> bool:
        return shape == self.input_shape

    def head_only(self) -> SequentialSpec:
        return replace(self, backbone={"layers": ["flatten"]})
