"""Define the interface of all speech recognition networks.

Dimensions: batch recordings, time frames or samples of the input, bands values of each frame, steps of the output (fewer than the
input's frames), classes: the characters and the blank.
"""

from __future__ import annotations

from pathlib import Path

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from tunewright.models.core.network import Block, Network, Spec

# The class that stands for no character.
BLANK = 0

Lengths = Int[Tensor, " batch"]
Recordings = dict[str, Tensor]
"""{"features": [batch, time, bands], or [batch, time] for a network on waveforms, "lengths": [batch]}."""


class Recogniser(Network):
    """Map recordings to log probabilities [batch, steps, classes].

    The output for a recording does not depend on the other recordings in the batch.

    Args:
        spec: {"speech": {"name", "reads", "width", "outputs", …}}.
    """

    def __init__(self, spec: Spec) -> None:
        super().__init__()
        self.spec = spec

    @property
    def facts(self) -> Spec:
        """Return the part of `spec` about speech."""
        return self.spec["speech"]

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
