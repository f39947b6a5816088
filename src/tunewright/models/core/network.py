"""What every network here can do, and the one class of our own networks: named backbone blocks, then a head."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal

from torch import Tensor, nn

from tunewright.models.core.meta_weights import hollowed

# One tensor, or several by name: {"input_ids": [B, T], "attention_mask": [B, T]}.
Inputs = Tensor | dict[str, Tensor]


@dataclass(frozen=True)
class Block:
    """A part of a network that is frozen or trained as a whole."""

    name: str
    module: nn.Module
    part: Literal["backbone", "head"]
    prefix: str
    """What the names of its tensors begin with in the network's state_dict."""
    elsewhere: frozenset[str] = frozenset()
    """Names of parameters in it that a block before it holds too: they are that one's."""

    @property
    def title(self) -> str:
        return f"{self.part}.{self.name}"

    def parameters(self) -> dict[str, nn.Parameter]:
        """Its parameters by their names in the network."""
        named = {f"{self.prefix}{name}": value for name, value in self.module.named_parameters()}
        return {name: value for name, value in named.items() if name not in self.elsewhere}


class Network(nn.Module, ABC):
    """A network that can be frozen by blocks, saved, and made again."""

    spec: dict[str, Any]
    """Plain data from which the same network can be made again."""

    @abstractmethod
    def blocks(self) -> list[Block]:
        """All blocks in order from the input; each parameter is in exactly one."""

    @abstractmethod
    def example(self) -> Inputs:
        """Empty inputs, a batch of one."""

    def rate_of(self, name: str) -> float:
        """The multiple of the learning rate that a parameter asks for by its size; 1 unless the architecture has a rule."""
        return 1.0


@contextmanager
def evaluating(network: nn.Module) -> Generator[None]:
    """Evaluation mode for a while; afterwards each module is in the mode it was in. A network without memory can be computed with."""
    modes = [(module, module.training) for module in network.modules()]
    network.eval()
    try:
        with hollowed(network):
            yield
    finally:
        for module, mode in modes:
            module.training = mode


class SequentialNetwork(Network):
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
        self.spec = described

    def forward(self, inputs: Tensor) -> Tensor:
        """[B, *input_shape] to [B, outputs]."""
        return self.head(self.backbone(inputs))

    def blocks(self) -> list[Block]:
        parts: tuple[tuple[Literal["backbone", "head"], nn.Sequential], ...] = (
            ("backbone", self.backbone),
            ("head", self.head),
        )
        return [
            Block(name, module, part, f"{part}.{name}.")
            for part, sequence in parts
            for name, module in sequence.named_children()
        ]

    def example(self) -> Tensor:
        return next(self.parameters()).new_zeros(1, *self.spec["input_shape"])
