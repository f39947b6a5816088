"""Define the interface of all speech recognition networks.

Dimensions: batch recordings, time frames or samples of the input, bands values of each frame, steps of the output (fewer than the
input's frames), classes: the characters and the blank.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from tunewright.models.core.network import Block, Network
from tunewright.models.core.spec import NetworkSpec

# The class that stands for no character.
BLANK = 0

Lengths = Int[Tensor, " batch"]
Recordings = dict[str, Tensor]
"""{"features": [batch, time, bands], or [batch, time] for a network on waveforms, "lengths": [batch]}."""


@dataclass(frozen=True)
class SpeechSpec(NetworkSpec):
    """Hold what a speech model is made from."""

    family: ClassVar[str] = "speech"

    facts: dict[str, Any]
    """{"name", "reads", "width", "outputs", …}: which of `models/speech/registry.py`'s, what it reads, and its own options."""

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> SpeechSpec:
        return cls(values[cls.family])

    def to_json(self) -> dict[str, Any]:
        return {self.family: self.facts}


class Recogniser(Network):
    """Map recordings to log probabilities [batch, steps, classes].

    The output for a recording does not depend on the other recordings in the batch.
    """

    def __init__(self, spec: SpeechSpec) -> None:
        super().__init__()
        self._spec = spec

    @property
    def spec(self) -> SpeechSpec:
        return self._spec

    @property
    def facts(self) -> dict[str, Any]:
        return self.spec.facts

    def moments(self, lengths: Lengths) -> Lengths:
        """Return the number of output steps for each number of input frames."""
        raise NotImplementedError

    def read_weights(self, folder: Path) -> None:
        """Load pretrained weights from a folder of the Transformers library, for a network of that library."""
        raise NotImplementedError

    def blocks(self) -> list[Block]:
        return [
            Block(name, module, "head" if name == "head" else "backbone", f"{name}.")
            for name, module in self.named_children()
        ]

    def example(self) -> Recordings:
        device, width = next(self.parameters()).device, self.facts["width"]
        shape = (1, 8000) if width == 1 else (1, 100, width)
        return {"features": torch.zeros(shape, device=device), "lengths": torch.tensor([shape[1]], device=device)}


def present(lengths: Lengths, longest: int) -> Bool[Tensor, "batch {longest}"]:
    """Return a mask that is true within each recording and false in its padding."""
    return torch.arange(longest, device=lengths.device) < lengths[:, None]
