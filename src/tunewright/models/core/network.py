"""Define the interface of all networks, and the network made of named backbone blocks and a head."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal

from jaxtyping import Float, Shaped
from torch import Tensor, nn

from tunewright.models.core.meta_weights import hollowed

# One tensor, or several by name: {"input_ids": [batch, time], "attention_mask": [batch, time]}.
Inputs = Tensor | dict[str, Tensor]
Spec = dict[str, Any]
"""Plain data, as a JSON file holds it, from which a network or a part of one can be made again."""


@dataclass(frozen=True)
class Block:
    """Hold a part of a network that is frozen or trained as a whole."""

    name: str
    module: nn.Module
    part: Literal["backbone", "head"]
    prefix: str
    """The prefix of its tensors' names in the network's state_dict."""
    elsewhere: frozenset[str] = frozenset()
    """Names of its parameters that an earlier block holds too; they belong to that one."""

    @property
    def title(self) -> str:
        return f"{self.part}.{self.name}"

    def parameters(self) -> dict[str, nn.Parameter]:
        """Return its parameters by their names in the network."""
        named = {f"{self.prefix}{name}": value for name, value in self.module.named_parameters()}
        return {name: value for name, value in named.items() if name not in self.elsewhere}


class Network(nn.Module, ABC):
    """Define a network that can be frozen by blocks, saved, and made again."""

    spec: Spec
    """What the same network can be made from."""

    @abstractmethod
    def blocks(self) -> list[Block]:
        """Return all blocks in order from the input; each parameter is in exactly one."""

    @abstractmethod
    def example(self) -> Inputs:
        """Return inputs of zeros, a batch of one."""

    def rate_of(self, name: str) -> float:
        """Return the factor on the learning rate of a parameter; 1 unless the architecture has a rule."""
        return 1.0


@contextmanager
def evaluating(network: nn.Module) -> Generator[None]:
    """Switch to evaluation mode and restore each module's mode at the end. Meta weights become fake ones, to compute with."""
    modes = [(module, module.training) for module in network.modules()]
    network.eval()
    try:
        with hollowed(network):
            yield
    finally:
        for module, mode in modes:
            module.training = mode


class SequentialNetwork(Network):
    """Compute a backbone and then a head, each a sequence of named blocks.

    Args:
        backbone: the blocks in order from the input; fine-tuning keeps them.
        head: the layers that make the outputs; fine-tuning replaces them.
        spec: what `build_network` makes the same network from.
    """

    def __init__(self, backbone: nn.Sequential, head: nn.Sequential, spec: Spec) -> None:
        super().__init__()
        self.backbone = backbone
        self.head = head
        self.spec = spec

    def forward(self, inputs: Shaped[Tensor, "batch ..."]) -> Float[Tensor, "batch ..."]:
        """Compute the outputs, the logits of a classifier."""
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

    def example(self) -> Float[Tensor, "1 ..."]:
        return next(self.parameters()).new_zeros(1, *self.spec["input_shape"])
