"""Capture the input of a layer during a forward pass."""

from __future__ import annotations

from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor, nn


@dataclass
class Tap:
    """Keep the input of a layer, replaced at each forward pass."""

    layer: nn.Module
    value: Tensor | None = None

    def __enter__(self) -> Tap:
        self.hook = self.layer.register_forward_pre_hook(self._note)
        return self

    def __exit__(self, *_: object) -> None:
        self.hook.remove()

    def _note(self, _layer: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        self.value = inputs[0]

    def taken(self) -> Float[Tensor, "batch features"]:
        """Return the input of the last forward pass."""
        assert self.value is not None
        return self.value
