"""Define residual networks (He et al. 2015, "Deep Residual Learning for Image Recognition").

For small images (section 4.2): resnet20, 32, 44, 56, 110; n = (depth − 2) / 6 blocks in each of three stages of 16, 32 and 64
filters, shortcuts without parameters (option A). For large images (section 3.3 and table 1): resnet18, 34, 50.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from tunewright.models.core.layers import GlobalPool, LayerMismatch, Shape, even_groups

Blocks = list[tuple[str, Callable[[], nn.Module]]]
# Normalisation over the batch (Ioffe and Szegedy 2015), or over groups of each example's channels (Wu and He 2018).
Norm = Literal["batch", "group"]


class BasicBlock(nn.Module):
    """Apply two 3×3 convolutions and a shortcut; the output is H/stride × W/stride.

    Where the shape changes, the shortcut takes every other pixel and adds channels of zeros (option A, `project` false) or is
    a 1×1 convolution (option B).
    """

    def __init__(self, channels: int, filters: int, stride: int, *, project: bool, norm: Norm = "batch") -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, filters, 3, stride, 1, bias=False)
        self.norm1 = _norm(filters, norm)
        self.conv2 = nn.Conv2d(filters, filters, 3, 1, 1, bias=False)
        self.norm2 = _norm(filters, norm)
        self.shortcut = _shortcut(channels, filters, stride, project, norm)

    def forward(
        self, inputs: Float[Tensor, "batch channels height width"]
    ) -> Float[Tensor, "batch filters height_out width_out"]:
        hidden = F.relu(self.norm1(self.conv1(inputs)))
        return F.relu(self.norm2(self.conv2(hidden)) + self.shortcut(inputs))


class Bottleneck(nn.Module):
    """Apply 1×1, 3×3 and 1×1 convolutions and a shortcut; the stride is in the 3×3, as in the usual published weights."""

    def __init__(self, channels: int, width: int, stride: int, *, norm: Norm = "batch") -> None:
        super().__init__()
        filters = 4 * width
        self.conv1 = nn.Conv2d(channels, width, 1, bias=False)
        self.norm1 = _norm(width, norm)
        self.conv2 = nn.Conv2d(width, width, 3, stride, 1, bias=False)
        self.norm2 = _norm(width, norm)
        self.conv3 = nn.Conv2d(width, filters, 1, bias=False)
        self.norm3 = _norm(filters, norm)
        self.shortcut = _shortcut(channels, filters, stride, True, norm)

    def forward(
        self, inputs: Float[Tensor, "batch channels height width"]
    ) -> Float[Tensor, "batch filters height_out width_out"]:
        hidden = F.relu(self.norm1(self.conv1(inputs)))
        hidden = F.relu(self.norm2(self.conv2(hidden)))
        return F.relu(self.norm3(self.conv3(hidden)) + self.shortcut(inputs))


class SubsampleAndPad(nn.Module):
    """Take every `stride`-th pixel and append channels of zeros: the shortcut of option A."""

    def __init__(self, stride: int, extra: int) -> None:
        super().__init__()
        self.stride = stride
        self.extra = extra

    def forward(
        self, inputs: Float[Tensor, "batch channels height width"]
    ) -> Float[Tensor, "batch filters height_out width_out"]:
        return F.pad(inputs[:, :, :: self.stride, :: self.stride], (0, 0, 0, 0, 0, self.extra))


def small_resnet(depth: int) -> Callable[..., Blocks]:
    """Return the maker of a network for CIFAR-sized images, of depth 6n + 2."""

    def blocks(shape: Shape, *, norm: Norm = "batch") -> Blocks:
        channels = _channels(shape)
        found: Blocks = [("stem", lambda: _stem(nn.Conv2d(channels, 16, 3, 1, 1, bias=False), 16, norm))]
        before = 16
        for stage, filters in enumerate((16, 32, 64), start=1):
            for number in range(1, (depth - 2) // 6 + 1):
                stride = 2 if stage > 1 and number == 1 else 1
                found.append((f"stage{stage}_block{number}", _basic(before, filters, stride, project=False, norm=norm)))
                before = filters
        return [*found, ("pool", GlobalPool)]

    return blocks


def large_resnet(counts: tuple[int, int, int, int], *, bottleneck: bool) -> Callable[..., Blocks]:
    """Return the maker of a network for ImageNet-sized images.

    Args:
        counts: the number of blocks in each stage.
        bottleneck: use `Bottleneck` blocks instead of `BasicBlock`.
    """

    def blocks(shape: Shape, *, norm: Norm = "batch") -> Blocks:
        channels = _channels(shape)
        found: Blocks = [("stem", lambda: _large_stem(channels, norm))]
        before = 64
        for stage, (count, width) in enumerate(zip(counts, (64, 128, 256, 512), strict=True), start=1):
            for number in range(1, count + 1):
                stride = 2 if stage > 1 and number == 1 else 1
                make = (
                    _bottleneck(before, width, stride, norm)
                    if bottleneck
                    else _basic(before, width, stride, project=True, norm=norm)
                )
                found.append((f"stage{stage}_block{number}", make))
                before = 4 * width if bottleneck else width
        return [*found, ("pool", GlobalPool)]

    return blocks


def _large_stem(channels: int, norm: Norm) -> nn.Module:
    return nn.Sequential(_stem(nn.Conv2d(channels, 64, 7, 2, 3, bias=False), 64, norm), nn.MaxPool2d(3, 2, 1))


def _basic(channels: int, filters: int, stride: int, *, project: bool, norm: Norm) -> Callable[[], nn.Module]:
    return lambda: BasicBlock(channels, filters, stride, project=project, norm=norm)


def _bottleneck(channels: int, width: int, stride: int, norm: Norm) -> Callable[[], nn.Module]:
    return lambda: Bottleneck(channels, width, stride, norm=norm)


def _stem(convolution: nn.Conv2d, filters: int, norm: Norm) -> nn.Module:
    return nn.Sequential(convolution, _norm(filters, norm), nn.ReLU())


def _shortcut(channels: int, filters: int, stride: int, project: bool, norm: Norm) -> nn.Module:
    if stride == 1 and channels == filters:
        return nn.Identity()
    if project:
        return nn.Sequential(nn.Conv2d(channels, filters, 1, stride, bias=False), _norm(filters, norm))
    return SubsampleAndPad(stride, filters - channels)


def _norm(channels: int, norm: Norm) -> nn.Module:
    return nn.BatchNorm2d(channels) if norm == "batch" else nn.GroupNorm(even_groups(channels), channels)


def _channels(shape: Shape) -> int:
    if len(shape) != 3:
        raise LayerMismatch(
            f"a residual network reads images, the data has the shape {list(shape)}", fix="model.backbone: mlp"
        )
    return shape[0]
