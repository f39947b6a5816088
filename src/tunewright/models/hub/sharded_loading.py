"""The weights of a gpt one tensor at a time: as a folder's files have them, or as they are drawn.

So a network that is divided among processes need never be whole in any of them. Other models' weights are renamed and put together
when they are read, by rules that want all of them.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from torch import Tensor, nn

from tunewright.models.core.network import Network
from tunewright.models.hub.hf_network import Transformer, seeded_library

# What peft puts into the names of weights that it leaves as they are, or copies.
_AROUND = re.compile(
    r"^base_model\.model\.|\.base_layer(?=\.)|\.original_module(?=\.)|\.modules_to_save\.default(?=\.)"
)


def is_piecewise(network: Network) -> bool:
    """Return whether a network is a gpt whose weights are saved under its own names."""
    return isinstance(network, Transformer) and network.is_gpt and network.spec.head is None


def file_name(network: Network, name: str) -> str:
    """Return what a parameter of a gpt, with an adapter or without, is called in a folder of saved weights."""
    assert isinstance(network, Transformer)
    plain = _AROUND.sub("", name.removeprefix("model."))
    tied = network.core.config.tie_word_embeddings and plain == "lm_head.weight"
    return "model.embed_tokens.weight" if tied else plain


def is_in_files(network: Network, names: set[str], folder: Path) -> bool:
    """Return whether a folder's safetensors have each of these parameters by its name, in its shape."""
    shapes: dict[str, list[int]] = {}
    for path in folder.glob("*.safetensors"):
        with safe_open(path, framework="pt") as opened:
            shapes |= {key: opened.get_slice(key).get_shape() for key in opened.keys()}  # noqa: SIM118 it is no dict
    return all(
        shapes.get(file_name(network, name)) == list(value.shape)
        for name, value in network.named_parameters()
        if name in names
    )


def draw(network: Network, seed: int, put: Callable[[str, Tensor], None]) -> None:
    """The starting weights of a gpt without an adapter, the very numbers that `build_transformer` gives it.

    Args:
        put: gets each parameter's name and values.
    """
    assert isinstance(network, Transformer)
    starts: Any = network.core.starts
    modules: list[tuple[str, Any]] = [
        (name, module) for name, module in network.named_modules() if hasattr(module, "weight")
    ]

    def drawn() -> nn.Module:
        for _, module in modules:  # what a module draws when it is made is written over, and counts nevertheless
            if isinstance(module, nn.Embedding):
                nn.init.normal_(torch.empty(module.weight.shape))
            elif isinstance(module, nn.Linear):
                nn.init.kaiming_uniform_(torch.empty(module.weight.shape), a=5**0.5)
        for name, module in modules:
            value = torch.empty(module.weight.shape)
            put(f"{name}.weight", value.normal_(std=starts[module]) if module in starts else value.fill_(1.0))
        return network

    seeded_library(seed, drawn)
