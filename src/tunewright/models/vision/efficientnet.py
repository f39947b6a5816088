"""Define EfficientNet-lite0 (Tan and Le 2019, "EfficientNet: Rethinking Model Scaling for Convolutional Neural Networks",
table 1), the lite variant of its authors: no squeeze-and-excitation, ReLU6 instead of swish, and a stem and top that are
never scaled.

Its blocks are MobileNetV2's (Sandler et al. 2018, section 3.3): expand with a 1×1 convolution, filter each channel
separately, project without an activation, and add the input where the shape does not change.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from tunewright.models.core.layers import GlobalPool, LayerMismatch, Shape

# (blocks, kernel, stride of the first, expansion, filters) of each stage.
STAGES = (
    (1, 3, 1, 1, 16),
    (2, 3, 2, 6, 24),
    (2, 5, 2, 6, 40),
    (3, 3, 2, 6, 80),
    (3, 5, 1, 6, 112),
    (4, 5, 2, 6, 192),
    (1, 3, 1, 6, 320),
)
STEM, TOP = 32, 1280


class ConvNorm(nn.Module):
    """Apply a convolution without bias, batch normalisation and, with `active`, ReLU6; the output is ⌈H/s⌉ × ⌈W/s⌉.

    The padding is TensorFlow's "same", with the odd pixel at the right and the bottom, as the published weights expect.
    """

    def __init__(
        self, channels: int, filters: int, kernel: int, stride: int = 1, *, groups: int = 1, active: bool = True
    ):
        super().__init__()
        self.conv = nn.Conv2d(channels, filters, kernel, stride, groups=groups, bias=False)
        # The authors' momentum, 0.01, is for hundreds of epochs: a short fine-tuning would end with ImageNet's statistics.
        self.norm = nn.BatchNorm2d(filters, eps=1e-3, momentum=0.1)
        self.active = nn.ReLU6() if active else nn.Identity()

    def forward(
        self, inputs: Float[Tensor, "batch channels height width"]
    ) -> Float[Tensor, "batch filters height_out width_out"]:
        # With channels last in memory, depthwise convolutions on a CPU are up to four times as fast.
        inputs = inputs.contiguous(memory_format=torch.channels_last)
        (kernel, _), (stride, _) = self.conv.kernel_size, self.conv.stride
        if kernel > 1:
            before = [
                (_same(size, kernel, stride) // 2, -(-_same(size, kernel, stride) // 2)) for size in inputs.shape[2:]
            ]
            inputs = F.pad(inputs, (*before[1], *before[0]))
        return self.active(self.norm(self.conv(inputs)))


class InvertedBottleneck(nn.Module):
    """Expand, filter each channel, project; the output is ⌈H/stride⌉ × ⌈W/stride⌉."""

    def __init__(self, channels: int, filters: int, kernel: int, stride: int, expansion: int) -> None:
        super().__init__()
        width = channels * expansion
        self.expand = ConvNorm(channels, width, 1) if expansion > 1 else nn.Identity()
        self.depthwise = ConvNorm(width, width, kernel, stride, groups=width)
        self.project = ConvNorm(width, filters, 1, active=False)
        self.adds = stride == 1 and channels == filters

    def forward(
        self, inputs: Float[Tensor, "batch channels height width"]
    ) -> Float[Tensor, "batch filters height_out width_out"]:
        hidden = self.project(self.depthwise(self.expand(inputs)))
        return hidden + inputs if self.adds else hidden


def efficientnet_lite0(shape: Shape) -> list[tuple[str, Callable[[], nn.Module]]]:
    """Return the named blocks for images [channels, height, width]: stem, sixteen blocks, top, pool."""
    if len(shape) != 3:
        raise LayerMismatch(
            f"EfficientNet reads images, the data has the shape {list(shape)}", fix="model.backbone: mlp"
        )
    found: list[tuple[str, Callable[[], nn.Module]]] = [("stem", lambda: ConvNorm(shape[0], STEM, 3, 2))]
    before = STEM
    for name, (kernel, stride, expansion, filters) in _blocks():
        found.append((name, _bottleneck(before, filters, kernel, stride, expansion)))
        before = filters
    return [*found, ("top", lambda: ConvNorm(before, TOP, 1)), ("pool", GlobalPool)]


def published_names(names: Mapping[str, Tensor]) -> dict[str, str]:
    """Map the tensor names of the published weights (the naming of lukemelas/EfficientNet-PyTorch) to ours.

    Raises:
        KeyError: a name that the network does not have.
    """
    blocks = [name for name, _ in _blocks()]
    outer = {"_conv_stem": "stem.conv", "_bn0": "stem.norm", "_conv_head": "top.conv", "_bn1": "top.norm"}
    inner = {
        "_expand_conv": "expand.conv",
        "_bn0": "expand.norm",
        "_depthwise_conv": "depthwise.conv",
        "_bn1": "depthwise.norm",
        "_project_conv": "project.conv",
        "_bn2": "project.norm",
    }
    found: dict[str, str] = {}
    for name in names:
        *place, module, tensor = name.split(".")
        if place:
            found[name] = f"backbone.{blocks[int(place[1])]}.{inner[module]}.{tensor}"
        elif module == "_fc":
            found[name] = f"head.0_dense.{tensor}"
        else:
            found[name] = f"backbone.{outer[module]}.{tensor}"
    return found


def _blocks() -> list[tuple[str, tuple[int, int, int, int]]]:
    """Return name and (kernel, stride, expansion, filters) of each block."""
    return [
        (f"stage{stage}_block{number}", (kernel, stride if number == 1 else 1, expansion, filters))
        for stage, (count, kernel, stride, expansion, filters) in enumerate(STAGES, start=1)
        for number in range(1, count + 1)
    ]


def _bottleneck(channels: int, filters: int, kernel: int, stride: int, expansion: int) -> Callable[[], nn.Module]:
    return lambda: InvertedBottleneck(channels, filters, kernel, stride, expansion)


def _same(size: int, kernel: int, stride: int) -> int:
    """Return the total padding in pixels that gives ⌈size / stride⌉ outputs."""
    return max(0, (-(-size // stride) - 1) * stride + kernel - size)
