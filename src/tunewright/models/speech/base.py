"""A network that hears: what all of them share, whatever they are made of.

Shapes: B recordings, T moments of the input, M numbers for each, S moments of the output, K letters and the blank.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from tunewright.models.core.network import Block, Network

# The output that stands for no letter.
BLANK = 0


class Recogniser(Network):
    """The network of a description {"speech": {"name", "reads", "width", "outputs", …}}.

    Called with {"features": [B, T, M], or [B, T] where it reads samples, "lengths": [B]} it gives log probabilities [B, S, K];
    what it gives for a recording does not depend on what else is in the batch.
    """

    def __init__(self, described: dict[str, Any]) -> None:
        super().__init__()
        self.spec = described

    @property
    def facts(self) -> dict[str, Any]:
        return self.spec["speech"]

    def moments(self, lengths: Tensor) -> Tensor:
        """[B] of the input to [B] of the output."""
        raise NotImplementedError

    def read_weights(self, folder: Path) -> None:
        """Take pretrained weights from a folder of the Transformers library, where the network is one of it."""
        raise NotImplementedError

    def blocks(self) -> list[Block]:
        return [
            Block(name, module, "head" if name == "head" else "backbone", f"{name}.")
            for name, module in self.named_children()
        ]

    def example(self) -> dict[str, Tensor]:
        device, width = next(self.parameters()).device, self.facts["width"]
        shape = (1, 8000) if width == 1 else (1, 100, width)
        return {"features": torch.zeros(shape, device=device), "lengths": torch.tensor([shape[1]], device=device)}


def present(lengths: Tensor, longest: int) -> Tensor:
    """[B, longest]: which moments are in the recordings, and not behind their ends."""
    return torch.arange(longest, device=lengths.device) < lengths[:, None]
