"""The one class of our own networks: named backbone blocks, then a head."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn


class Network(nn.Module):
    """A backbone and a head, each a sequence of named blocks.

    Args:
        backbone: the blocks in order from the input; what a fine-tune keeps.
        head: the layers that make the outputs; what a fine-tune replaces.
        described: plain data from which `build_network` makes the same network again.
    """

    def __init__(self, backbone: nn.Sequential, head: nn.Sequential, described: dict[str, Any]) -> None:
        super().__init__()
        self.backbone = backbone
        self.head = head
        self.described = described

    def forward(self, inputs: Tensor) -> Tensor:
        """[B, *input_shape] to [B, outputs]."""
        return self.head(self.backbone(inputs))
