"""Read what goes into or comes out of a layer while a network computes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn


@dataclass
class Tap:
    """What flows into a layer, noted at each pass."""

    layer: nn.Module
    value: Tensor | None = None

    def __enter__(self) -> Tap:
        self.hook = self.layer.register_forward_pre_hook(self._note)
        return self

    def __exit__(self, *_: object) -> None:
        self.hook.remove()

    def _note(self, _layer: nn.Module, inputs: tuple[Any, ...]) -> None:
        self.value = inputs[0]

    def taken(self) -> Tensor:
        """[B, F]: the input of the last pass."""
        assert self.value is not None
        return self.value
