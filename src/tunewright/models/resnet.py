"""Residual networks (He et al. 2015, "Deep Residual Learning for Image Recognition").

For small images (section 4.2): resnet20, 32, 44, 56, 110; n = (depth − 2) / 6 blocks in each of three stages of 16, 32 and 64
filters, shortcuts without parameters (option A). For large images (section 3.3 and table 1): resnet18, 34, 50.
"""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor, nn
from torch.nn import functional as F

from tunewright.models.layers import GlobalPool, LayerMismatch, Shape

Blocks = list[tuple[str, Callable[[], nn.Module]]]


class BasicBlock(nn.Module):
    """Two 3×3 convolutions and a shortcut: [B, C, H, W] to [B, filters, H/stride, W/stride].

    Where the shape changes, the shortcut takes every other pixel and adds channels of zeros (option A, `project` false) or is
    a 1×1 convolution (option B).
    """

    def __init__(self, channels: int, filters: int, stride: int, *, project: bool) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, filters, 3, stride, 1, bias=False)
        self.norm1 = nn.BatchNorm2d(filters)
        self.conv2 = nn.Conv2d(filters, filters, 3, 1, 1, bias=False)
        self.norm2 = nn.BatchNorm2d(filters)
        self.shortcut = _shortcut(channels, filters, stride, project)

    def forward(self, inputs: Tensor) -> Tensor:
        hidden = F.relu(self.norm1(self.conv1(inputs)))
        return F.relu(self.norm2(self.conv2(hidden)) + self.shortcut(inputs))


class Bottleneck(nn.Module):
    """1×1, 3×3 and 1×1 convolutions and a shortcut; the stride is in the 3×3, as in the usual published weights."""

    def __init__(self, channels: int, width: int, stride: int) -> None:
        super().__init__()
        filters = 4 * width
        self.conv1 = nn.Conv2d(channels, width, 1, bias=False)
        self.norm1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, stride, 1, bias=False)
        self.norm2 = nn.BatchNorm2d(width)
        self.conv3 = nn.Conv2d(width, filters, 1, bias=False)
        self.norm3 = nn.BatchNorm2d(filters)
        self.shortcut = _shortcut(channels, filters, stride, project=True)

    def forward(self, inputs: Tensor) -> Tensor:
        hidden = F.relu(self.norm1(self.conv1(inputs)))
        hidden = F.relu(self.norm2(self.conv2(hidden)))
        return F.relu(self.norm3(self.conv3(hidden)) + self.shortcut(inputs))


class SubsampleAndPad(nn.Module):
    """The shortcut of option A: every `stride`-th pixel, and channels of zeros behind."""

    def __init__(self, stride: int, extra: int) -> None:
        super().__init__()
        self.stride = stride
        self.extra = extra

    def forward(self, inputs: Tensor) -> Tensor:
        return F.pad(inputs[:, :, :: self.stride, :: self.stride], (0, 0, 0, 0, 0, self.extra))


def small_resnet(depth: int) -> Callable[[Shape], Blocks]:
    """The networks for CIFAR-sized images: depth 6n + 2."""

    def blocks(shape: Shape) -> Blocks:
        channels = _channels(shape)
        found: Blocks = [("stem", lambda: _stem(nn.Conv2d(channels, 16, 3, 1, 1, bias=False), 16))]
        before = 16
        for stage, filters in enumerate((16, 32, 64), start=1):
            for number in range(1, (depth - 2) // 6 + 1):
                stride = 2 if stage > 1 and number == 1 else 1
                found.append((f"stage{stage}_block{number}", _basic(before, filters, stride, project=False)))
                before = filters
        return [*found, ("pool", GlobalPool)]

    return blocks


def large_resnet(counts: tuple[int, int, int, int], *, bottleneck: bool) -> Callable[[Shape], Blocks]:
    """The networks for ImageNet-sized images, with so many blocks in each stage."""

    def blocks(shape: Shape) -> Blocks:
        channels = _channels(shape)
        found: Blocks = [("stem", lambda: _large_stem(channels))]
        before = 64
        for stage, (count, width) in enumerate(zip(counts, (64, 128, 256, 512), strict=True), start=1):
            for number in range(1, count + 1):
                stride = 2 if stage > 1 and number == 1 else 1
                make = _bottleneck(before, width, stride) if bottleneck else _basic(before, width, stride, project=True)
                found.append((f"stage{stage}_block{number}", make))
                before = 4 * width if bottleneck else width
        return [*found, ("pool", GlobalPool)]

    return blocks


def _large_stem(channels: int) -> nn.Module:
    return nn.Sequential(_stem(nn.Conv2d(channels, 64, 7, 2, 3, bias=False), 64), nn.MaxPool2d(3, 2, 1))


def _basic(channels: int, filters: int, stride: int, *, project: bool) -> Callable[[], nn.Module]:
    return lambda: BasicBlock(channels, filters, stride, project=project)


def _bottleneck(channels: int, width: int, stride: int) -> Callable[[], nn.Module]:
    return lambda: Bottleneck(channels, width, stride)


def _stem(convolution: nn.Conv2d, filters: int) -> nn.Module:
    return nn.Sequential(convolution, nn.BatchNorm2d(filters), nn.ReLU())


def _shortcut(channels: int, filters: int, stride: int, project: bool) -> nn.Module:
    if stride == 1 and channels == filters:
        return nn.Identity()
    if project:
        return nn.Sequential(nn.Conv2d(channels, filters, 1, stride, bias=False), nn.BatchNorm2d(filters))
    return SubsampleAndPad(stride, filters - channels)


def _channels(shape: Shape) -> int:
    if len(shape) != 3:
        raise LayerMismatch(
            f"a residual network reads images, the data has the shape {list(shape)}", fix="model.backbone: mlp"
        )
    return shape[0]
