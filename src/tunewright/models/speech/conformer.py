"""Define Conformer: attention for global context, convolutions for local context (Gulati et al. 2020), trained with CTC.

A layer is half a feed-forward step, self-attention, a convolution, another half step, and a norm (section 2). Positions are
sines and cosines added to the input of the first layer. The convolution has a layer norm where the paper has a batch norm, so
that the output for a recording does not depend on the rest of the batch.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Annotated, Literal

import torch
from jaxtyping import Bool, Float
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from tunewright.models.core.layers import seeded
from tunewright.models.core.spec import Facts
from tunewright.models.speech.base import Lengths, Recogniser, Recordings, SpeechSpec, present
from tunewright.random import mix
from tunewright.recipe.schema import LayerCount

Positive = Annotated[int, Field(gt=0)]
Hidden = Float[Tensor, "batch steps features"]
Present = Bool[Tensor, "batch steps"]
"""True within each recording."""


class Subsampling(nn.Module):
    """Apply two convolutions over time and frequency, each with stride 2 in frequency.

    Args:
        moment: the total stride in time, 2 or 4.
    """

    def __init__(self, bands: int, width: int, moment: int) -> None:
        super().__init__()
        self.steps = [2, moment // 2]
        self.layers = nn.ModuleList(
            nn.Conv2d(inputs, width // 4, 3, (step, 2), padding=1)
            for inputs, step in zip((1, width // 4), self.steps, strict=True)
        )
        left = ((bands + 1) // 2 + 1) // 2
        self.out = nn.Linear(width // 4 * left, width)

    def forward(self, x: Float[Tensor, "batch time bands"], lengths: Lengths) -> tuple[Hidden, Lengths]:
        x = x.unsqueeze(1)
        for layer, step in zip(self.layers, self.steps, strict=True):
            lengths = (lengths + step - 1) // step
            x = F.silu(layer(x))
            x = x * present(lengths, x.shape[2])[:, None, :, None]
        return self.out(x.transpose(1, 2).flatten(2)), lengths


class FeedForward(nn.Sequential):
    """Apply a norm and two linear layers, of four times the width between them."""

    def __init__(self, width: int) -> None:
        super().__init__(nn.LayerNorm(width), nn.Linear(width, 4 * width), nn.SiLU(), nn.Linear(4 * width, width))


class ConvolutionModule(nn.Module):
    """Apply a gated linear layer, a depthwise convolution over `kernel` steps, a norm and a linear layer."""

    def __init__(self, width: int, kernel: int) -> None:
        super().__init__()
        self.before = nn.LayerNorm(width)
        self.gate = nn.Linear(width, 2 * width)
        self.over = nn.Conv1d(width, width, kernel, padding=kernel // 2, groups=width)
        self.norm = nn.LayerNorm(width)
        self.out = nn.Linear(width, width)

    def forward(self, x: Hidden, there: Present) -> Hidden:
        x = F.glu(self.gate(self.before(x))) * there[..., None]
        x = self.over(x.transpose(1, 2)).transpose(1, 2)
        return self.out(F.silu(self.norm(x)))


class Layer(nn.Module):
    """Apply one Conformer layer."""

    def __init__(self, width: int, heads: int, kernel: int) -> None:
        super().__init__()
        self.heads = heads
        self.first, self.second = FeedForward(width), FeedForward(width)
        self.norm = nn.LayerNorm(width)
        self.query_key_value, self.mixed = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.near = ConvolutionModule(width, kernel)
        self.last = nn.LayerNorm(width)

    def forward(self, x: Hidden, there: Present) -> Hidden:
        x = x + self.first(x) / 2
        parts = self.query_key_value(self.norm(x)).unflatten(2, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        found = F.scaled_dot_product_attention(parts[0], parts[1], parts[2], attn_mask=there[:, None, None])
        x = x + self.mixed(found.transpose(1, 2).flatten(2))
        x = x + self.near(x, there)
        return self.last(x + self.second(x) / 2)


class Conformer(Recogniser):
    """Build a Conformer from its spec."""

    def __init__(self, spec: SpeechSpec, seed: int) -> None:
        super().__init__(spec)
        facts = self.facts
        width = facts["hidden"]

        def add(name: str, make: Callable[[], nn.Module]) -> None:
            self.add_module(name, seeded(mix(seed, name), make))

        add("shorter", lambda: Subsampling(facts["width"], width, facts["moment"]))
        for number in range(1, facts["layers"] + 1):
            add(f"layer{number}", lambda: Layer(width, facts["heads"], facts["kernel"]))
        add("head", lambda: nn.Linear(width, facts["outputs"]))

    def forward(self, inputs: Recordings) -> Float[Tensor, "batch steps classes"]:
        """Compute log probabilities."""
        parts = dict(self.named_children())
        x, lengths = parts["shorter"](inputs["features"], inputs["lengths"])
        there = present(lengths, x.shape[1])
        x = x + positions(x.shape[1], x.shape[2]).to(x)
        for name, part in parts.items():
            if name.startswith("layer"):
                x = part(x, there)
        return parts["head"](x).float().log_softmax(-1)

    def moments(self, lengths: Lengths) -> Lengths:
        for step in (2, self.facts["moment"] // 2):
            lengths = (lengths + step - 1) // step
        return lengths


def positions(count: int, width: int) -> Float[Tensor, "{count} {width}"]:
    """Return sine and cosine of each position at increasing wavelengths (Vaswani et al. 2017, section 3.5)."""
    rates = torch.exp(torch.arange(0, width, 2) * (-math.log(10_000) / width))
    angles = torch.arange(count)[:, None] * rates
    return torch.stack([angles.sin(), angles.cos()], -1).flatten(1)[:, :width]


def conformer(
    *,
    hidden: Annotated[int, Field(gt=0, multiple_of=8)] = 144,
    layers: LayerCount = 4,
    heads: Positive = 4,
    kernel: Annotated[int, Field(gt=0)] = 15,
    moment: Literal[2, 4] = 2,
    features: Literal["log_mel", "mfcc"] = "log_mel",
) -> Facts:
    """Return the options of a Conformer.

    Args:
        kernel: the steps that a convolution covers; an even number is rounded up.
        moment: how many frames of 10 ms become one step.
    """
    return {
        "reads": features,
        "moment": moment,
        "hidden": hidden,
        "layers": layers,
        "heads": heads,
        "kernel": kernel + 1 - kernel % 2,
    }
