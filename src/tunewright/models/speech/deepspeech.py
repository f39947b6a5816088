"""Define Deep Speech 2: convolutions over time and frequency, then recurrent layers, trained with CTC (Amodei et al. 2016).

The output has ⌈time / 2⌉ steps of 20 ms.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Literal

import torch
from jaxtyping import Float
from pydantic import Field
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from tunewright.models.core.layers import seeded
from tunewright.models.core.spec import Facts
from tunewright.models.speech.base import Lengths, Recogniser, Recordings, SpeechSpec, present
from tunewright.models.speech.onnx_gru import gru
from tunewright.random import mix
from tunewright.recipe.schema import LayerCount

Positive = Annotated[int, Field(gt=0)]
Hidden = Float[Tensor, "batch steps features"]
Units = Float[Tensor, "batch steps units"]


class Convolution(nn.Module):
    """Apply a convolution over time and frequency and a clipped rectifier; the output is 0 in the padding."""

    def __init__(self, inputs: int, channels: int, kernel: tuple[int, int], stride: tuple[int, int]) -> None:
        super().__init__()
        self.layer = nn.Conv2d(inputs, channels, kernel, stride, padding=(kernel[0] // 2, kernel[1] // 2))
        self.stride = stride[0]

    def forward(
        self, x: Float[Tensor, "batch channels time bands"], lengths: Lengths
    ) -> tuple[Float[Tensor, "batch channels_out steps bands_out"], Lengths]:
        found = self.layer(x)
        lengths = (lengths + self.stride - 1) // self.stride
        # Deep Speech's rectifier has an upper limit.
        return found.clamp(0, 20) * present(lengths, found.shape[2])[:, None, :, None], lengths


class Recurrent(nn.Module):
    """Apply a norm and a recurrent layer, bidirectional or forward only; the two directions are added."""

    def __init__(self, inputs: int, hidden: int, cell: str, both: bool) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(inputs)
        kind = {"gru": nn.GRU, "lstm": nn.LSTM}[cell]
        self.layer = kind(inputs, hidden, batch_first=True, bidirectional=both)

    def forward(self, x: Hidden, lengths: Lengths) -> Units:
        if torch.compiler.is_exporting():
            return self._unpacked(self.norm(x), lengths)
        # Packed, so that the backward direction starts at each recording's own end.
        packed = pack_padded_sequence(self.norm(x), lengths.cpu(), batch_first=True, enforce_sorted=False)
        found, _ = pad_packed_sequence(self.layer(packed)[0], batch_first=True, total_length=x.shape[1])
        return torch.stack(found.chunk(2, dim=-1)).sum(0) if self.layer.bidirectional else found

    def _unpacked(self, x: Hidden, lengths: Lengths) -> Units:
        """Compute the same for an exported graph, which has no packed sequences: the backward direction gets each recording
        reversed within its own length."""
        places = torch.arange(x.shape[1], device=x.device)
        turned = (lengths[:, None] - 1 - places).clamp(min=0)[..., None]
        found = self._run(x, "")
        if self.layer.bidirectional:
            back = self._run(x.gather(1, turned.expand_as(x)), "_reverse")
            found = found + back.gather(1, turned.expand_as(back))
        return found * present(lengths, x.shape[1])[..., None]

    def _run(self, x: Hidden, direction: str) -> Units:
        """Run one direction of the layer from a state of zeros."""
        layer = self.layer
        weights = [getattr(layer, f"{name}_l0{direction}") for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")]
        if isinstance(layer, nn.GRU):
            return gru(x, *weights)
        start = x.new_zeros(1, x.shape[0], layer.hidden_size)
        return torch.lstm(x, (start, start), weights, True, 1, 0.0, False, False, True)[0]


class Lookahead(nn.Module):
    """Apply a depthwise convolution over the next few steps, for a forward-only layer (Amodei et al. 2016, section 3.5)."""

    def __init__(self, width: int, moments: int) -> None:
        super().__init__()
        self.moments = moments
        self.layer = nn.Conv1d(width, width, moments + 1, groups=width, bias=False)

    def forward(self, x: Hidden) -> Hidden:
        return self.layer(nn.functional.pad(x.transpose(1, 2), (0, self.moments))).transpose(1, 2)


class DeepSpeech(Recogniser):
    """Build Deep Speech 2 from its spec."""

    def __init__(self, spec: SpeechSpec, seed: int) -> None:
        super().__init__(spec)
        facts = self.facts
        bands, channels, hidden = facts["width"], facts["channels"], facts["hidden"]
        left = ((bands + 1) // 2 + 1) // 2
        both = facts["ahead"] == 0
        makers: list[tuple[str, Callable[[], nn.Module]]] = [
            ("conv1", lambda: Convolution(1, channels, (11, 21), (2, 2))),
            ("conv2", lambda: Convolution(channels, channels, (11, 11), (1, 2))),
        ]
        for number in range(facts["layers"]):
            inputs = channels * left if number == 0 else hidden
            makers.append((f"rnn{number + 1}", lambda inputs=inputs: Recurrent(inputs, hidden, facts["cell"], both)))
        if not both:
            makers.append(("look_ahead", lambda: Lookahead(hidden, facts["ahead"])))
        makers.append(("head", lambda: nn.Sequential(nn.LayerNorm(hidden), nn.Linear(hidden, facts["outputs"]))))
        for name, make in makers:
            self.add_module(name, seeded(mix(seed, name), make))

    def forward(self, inputs: Recordings) -> Float[Tensor, "batch steps classes"]:
        """Compute log probabilities."""
        x, lengths = inputs["features"].unsqueeze(1), inputs["lengths"]
        parts = dict(self.named_children())
        for name in ("conv1", "conv2"):
            x, lengths = parts[name](x, lengths)
        x = x.transpose(1, 2).flatten(2)
        for name, part in parts.items():
            if name.startswith("rnn"):
                x = part(x, lengths)
        if "look_ahead" in parts:
            x = parts["look_ahead"](x)
        return parts["head"](x).float().log_softmax(-1)

    def moments(self, lengths: Lengths) -> Lengths:
        return (lengths + 1) // 2


# Channels of the convolutions, recurrent layers, and their units.
SIZES = {"small": (32, 3, 256), "base": (32, 5, 512), "large": (32, 7, 1024)}


def deepspeech(
    *,
    size: Literal["small", "base", "large"] = "small",
    channels: Positive | None = None,
    layers: LayerCount | None = None,
    hidden: Positive | None = None,
    cell: Literal["gru", "lstm"] = "gru",
    ahead: Annotated[int, Field(ge=0)] = 0,
    features: Literal["log_mel", "mfcc"] = "log_mel",
) -> Facts:
    """Return the options of Deep Speech 2.

    Args:
        size: the default of `channels`, `layers` and `hidden`.
        ahead: for streaming, make the network forward-only with so many steps of 20 ms of lookahead; 0: bidirectional.
    """
    usual = SIZES[size]
    return {
        "reads": features,
        "moment": 2,
        "channels": channels or usual[0],
        "layers": layers or usual[1],
        "hidden": hidden or usual[2],
        "cell": cell,
        "ahead": ahead,
    }
