"""Define the interface of all networks, and the network made of named backbone blocks and a head."""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Collection, Generator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any, Literal

import torch
from jaxtyping import Float, Shaped
from torch import Tensor, nn

from tunewright.models.core.meta_weights import fake_weights
from tunewright.models.core.spec import NetworkSpec, SequentialSpec
from tunewright.recipe.schema import Layer
from tunewright.runs.summary.model import OpeningSummary, PretrainedModel

# One tensor, or several by name: {"input_ids": [batch, time], "attention_mask": [batch, time]}.
Inputs = Tensor | dict[str, Tensor]
# A part of a layer with its matrices, each divided by rows (0) or by columns (1).
TensorParallelPart = tuple[nn.Module, list[tuple[nn.Linear, int]]]


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
    """Define a network that can be frozen by blocks, saved, and made again.

    What differs from one kind of network to another is a method here, so that callers need not know the kind.
    """

    reduced: bool = False
    """Whether it computes in bfloat16 where that is safe (autocast); the weights stay float32."""

    @property
    @abstractmethod
    def spec(self) -> NetworkSpec:
        """Return what the same network can be made from."""

    @abstractmethod
    def blocks(self) -> list[Block]:
        """Return all blocks in order from the input; each parameter is in exactly one."""

    @abstractmethod
    def example(self) -> Inputs:
        """Return inputs of zeros, a batch of one."""

    def largest_example(self, shape: tuple[int, ...]) -> Inputs:
        """Return an example of the largest size that the encoder's `shape` allows, a batch of one."""
        return self.example()

    @property
    def is_stochastic(self) -> bool:
        """Return whether the network draws random numbers while it trains."""
        return any(isinstance(module, nn.Dropout | nn.Dropout2d) for module in self.modules())

    @property
    def last_module(self) -> nn.Module:
        """Return the module whose output the loss is computed from."""
        return self

    @property
    def from_library(self) -> bool:
        """Whether the network is one of the Transformers library."""
        return False

    @property
    def reads_text(self) -> bool:
        """Whether its inputs are the tokens of a text, with a tokenizer that is saved beside it."""
        return False

    @property
    def adapted(self) -> bool:
        """Whether it is a pretrained network with an adapter of peft."""
        return False

    @property
    def supports_bfloat16(self) -> bool:
        """Whether it can compute in bfloat16."""
        return False

    def autocast(self, device: torch.device) -> AbstractContextManager[Any]:
        """Compute in bfloat16 within where `reduced` says so."""
        return torch.autocast(device.type, dtype=torch.bfloat16) if self.reduced else nullcontext()

    @property
    def supports_gradient_checkpointing(self) -> bool:
        """Whether it can recompute its activations in the backward pass."""
        return False

    def enable_gradient_checkpointing(self) -> None:
        """Recompute activations in the backward pass, where that is supported."""

    def materialize_logits(self) -> None:
        """Compute logits as outputs of the whole network, so that hooks see them; the default does so in any case."""

    def title(self, kinds: Sequence[str]) -> str:
        """Return a short description, from the kinds of its blocks."""
        return ", ".join(kinds) if len(kinds) <= 12 else f"{len(kinds)} blocks"

    def opening(self, made_from: PretrainedModel | None) -> OpeningSummary:
        """Describe by which library its saved folder is opened, and how.

        Args:
            made_from: the pretrained model that the weights come from.
        """
        return OpeningSummary(made_from=made_from)

    @property
    def vocabulary_size(self) -> int | None:
        """How many tokens the network has embeddings for; None: it reads no tokens."""
        return None

    def end_at(self, tokens: Collection[int]) -> None:
        """Set the tokens at which generation ends; a network that generates nothing has no use for them."""

    def rate_of(self, name: str) -> float:
        """Return the factor on the learning rate of a parameter; 1 unless the architecture has a rule."""
        return 1.0

    def layer_titles(self) -> dict[str, str]:
        """Return the names of blocks in a table, by their titles; a block without one is named by the class of its module."""
        return {}

    def shardable_blocks(self) -> list[Block]:
        """Return the blocks that are always called as a whole, so that each can be gathered by itself: the layers of a stack."""
        return [block for block in self.blocks() if block.parameters() and re.search(r"\.\d+$", block.name)]

    def tensor_parallel_plan(self) -> list[TensorParallelPart]:
        """Return the parts of the layers that processes can compute together; none where the network does not support it."""
        return []

    @property
    def communication_dtype(self) -> torch.dtype | None:
        """Return the type in which a sharded layer's weights are sent; None: their own."""
        return None

    def whole_facts(self) -> dict[str, Any]:
        """Return attributes, as JSON, that can be computed on the whole network but not on a shard of it."""
        return {}


@contextmanager
def evaluating(network: nn.Module) -> Generator[None]:
    """Switch to evaluation mode and restore each module's mode at the end. Meta weights become fake ones, to compute with."""
    modes = [(module, module.training) for module in network.modules()]
    network.eval()
    try:
        with fake_weights(network):
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

    def __init__(self, backbone: nn.Sequential, head: nn.Sequential, spec: SequentialSpec) -> None:
        super().__init__()
        self.backbone = backbone
        self.head = head
        self._spec = spec

    @property
    def spec(self) -> SequentialSpec:
        return self._spec

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
        return next(self.parameters()).new_zeros(1, *self.spec.input_shape)

    def layer_titles(self) -> dict[str, str]:
        titles = {f"backbone.{name}": name.replace("_", " ") for name, _ in self.backbone.named_children()}
        layers = {"head": self.spec.head, "backbone": self.spec.backbone.get("layers", [])}
        for part, sequence in (("head", self.head), ("backbone", self.backbone)):
            for (name, _), layer in zip(sequence.named_children(), layers[part]):
                titles[f"{part}.{name}"] = _layer_title(layer)
        return titles

    def shardable_blocks(self) -> list[Block]:
        return [block for block in self.blocks() if block.parameters()]


def _layer_title(layer: Layer) -> str:
    if not isinstance(layer, dict):
        return str(layer)
    (name, value), *options = layer.items()
    rest = [str(option) if key == "activation" else f"{key} {option}" for key, option in options]
    return ", ".join([f"{name} {value}", *rest])
