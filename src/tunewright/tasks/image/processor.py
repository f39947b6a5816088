"""How a pretrained backbone wants its pictures: the Transformers library's preprocessor_config.json, read and written.

What it says is done here, on Pillow pictures and tensors: the library's own processors are not needed, nor what they import.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tunewright.data.image.image_examples import Scaling
from tunewright.data.image.resize_crop import Filter, Framing
from tunewright.errors import ArtifactError, RecipeError
from tunewright.models.backbone import Backbone
from tunewright.runs.folder import read_json

FILE = "preprocessor_config.json"
# Pillow's numbers of its filters, as the library writes them.
FILTERS: dict[int, Filter] = {0: "nearest", 1: "lanczos", 2: "bilinear", 3: "bicubic"}
# Processors that scale the shorter side to more than the size, and then cut: the share that is left of it.
CROP_SHARES = {"ConvNext": 224 / 256, "PoolFormer": 0.9, "Levit": 224 / 256}
# From this size on, ConvNext's processor scales straight to a square.
CONVNEXT_WARPS = 384
IMAGENET_MEAN, IMAGENET_STD = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]
# Steps that are no scaling, cutting or normalising.
STRANGE = ("do_pad", "do_color_quantize", "do_image_splitting", "do_reduce_labels")


@dataclass(frozen=True, kw_only=True)
class Processor:
    """What is done to a picture before a backbone sees it."""

    config: dict[str, Any]
    """In the library's format."""
    framing: Framing
    scaling: Scaling
    channels: int
    note: str | None = None
    """What had to be assumed."""


def backbone_processor(backbone: Backbone, size: tuple[int, int] | None) -> Processor:
    """Return the processor of a pretrained backbone.

    Args:
        size: the (height, width) that the recipe asks for in place of the backbone's own.

    Raises:
        ArtifactError: the file asks for something unknown.
        RecipeError: the processor cannot give such a size.
    """
    path = backbone.folder / FILE
    channels, height, width = _shape(backbone.config)
    note = None
    if path.exists():
        config = read_json(path, "a pretrained model")
    else:
        config = _assumed(channels, height, width)
        note = (
            f"{backbone.name} has no {FILE}, so its pictures are scaled to {height}×{width} and normalised by the mean "
            "and deviation of ImageNet"
        )
    if size is not None:
        config = resized(config, size, path)
    return Processor(
        config=config,
        framing=read_framing(config, path),
        scaling=read_scaling(config, channels, path),
        channels=channels,
        note=note,
    )


def read_framing(config: dict[str, Any], path: Path) -> Framing:
    """Read the scaling and cutting.

    Raises:
        ArtifactError: the file asks for a step that is unknown here, or for pictures without a common size.
    """
    if strange := [key for key in STRANGE if config.get(key)]:
        raise _unknown(path, f"{strange[0]}: {config[strange[0]]}")
    kind = _kind(config)
    size = config.get("size", 224)
    crop = _pair(config.get("crop_size", 224), path) if config.get("do_center_crop") else None
    number = config.get("resample", 2)
    if number not in FILTERS:
        raise _unknown(path, f"resample: {number}")
    if not config.get("do_resize", True):
        if crop is None:
            raise _unknown(path, "do_resize: false")
        return Framing(size=crop, scale_to=None, filter=FILTERS[number])
    # A number alone is the shorter side where the library's class says so, else a square.
    edge = size.get("shortest_edge") if isinstance(size, dict) else size if _keeps_proportions(kind) else None
    if edge is None:
        scaled = _pair(size, path)
        return Framing(size=crop or scaled, scale_to=scaled, filter=FILTERS[number])
    if isinstance(size, dict) and "longest_edge" in size:
        raise _unknown(path, f"size: {size}")
    if kind == "ConvNext" and edge >= CONVNEXT_WARPS:
        return Framing(size=(edge, edge), scale_to=(edge, edge), filter=FILTERS[number])
    if kind in CROP_SHARES:
        share = CROP_SHARES[kind] if kind == "Levit" else config.get("crop_pct") or CROP_SHARES[kind]
        return Framing(size=crop or (edge, edge), scale_to=int(edge / share), filter=FILTERS[number])
    return Framing(size=crop or (edge, edge), scale_to=edge, filter=FILTERS[number])


def read_scaling(config: dict[str, Any], channels: int, path: Path) -> Scaling:
    """Read the change from bytes to numbers.

    Raises:
        ArtifactError: mean and deviation are not for as many channels as the backbone reads.
    """
    factor = config.get("rescale_factor", 1 / 255) if config.get("do_rescale", True) else 1.0
    mean = std = None
    if config.get("do_normalize", True):
        mean, std = config.get("image_mean", [0.5] * channels), config.get("image_std", [0.5] * channels)
        mean, std = ([value] * channels if isinstance(value, int | float) else list(value) for value in (mean, std))
        if len(mean) != channels or len(std) != channels or 0 in std:
            raise ArtifactError(
                "mean and deviation do not fit the backbone",
                file=path,
                found=f"image_mean {mean}, image_std {std}",
                expected=f"{channels} numbers each, the deviations above 0",
                fix="correct the file",
            )
    if config.get("rescale_offset"):
        # x · factor − 1, before the mean is taken off.
        mean, std = [value + 1 for value in mean or [0.0] * channels], std or [1.0] * channels
    if _kind(config) == "EfficientNet" and config.get("include_top", True) and std is not None:
        # The library divides by the deviation a second time.
        std = [value * value for value in std]
    return Scaling(
        divisor=round(1 / factor, 6),
        mean=None if mean is None else tuple(mean),
        std=None if std is None else tuple(std),
        reverse=bool(config.get("do_flip_channel_order")),
    )


def resized(config: dict[str, Any], size: tuple[int, int], path: Path) -> dict[str, Any]:
    """Return the same processor for another size of its result; what is cut off keeps its share.

    Raises:
        RecipeError: it can only give squares.
    """
    before = read_framing(config, path)
    height, width = size
    if config.get("do_center_crop"):
        factor = min(height / before.size[0], width / before.size[1])
        scaled = {key: max(1, round(value * factor)) for key, value in _size_by_name(config, before).items()}
        return {**config, "size": scaled, "crop_size": {"height": height, "width": width}}
    if isinstance(before.scale_to, int) or _kind(config) == "ConvNext":
        if height != width:
            raise RecipeError(
                "the backbone takes square images",
                place="data.resize",
                found=list(size),
                expected="as many pixels in height as in width",
                fix=f"data.resize: [{height}, {height}]",
            )
        return {**config, "size": {"shortest_edge": height}}
    return {**config, "size": {"height": height, "width": width}}


def write_processor(config: dict[str, Any], folder: Path) -> None:
    """The file, where the library's AutoImageProcessor finds it."""
    from tunewright.files import write_json

    write_json(folder / FILE, config)


def _size_by_name(config: dict[str, Any], before: Framing) -> dict[str, int]:
    size = config.get("size", 224)
    if isinstance(size, dict):
        return {key: value for key, value in size.items() if value}
    return {"shortest_edge": size} if isinstance(before.scale_to, int) else {"height": size, "width": size}


def _assumed(channels: int, height: int, width: int) -> dict[str, Any]:
    colour = channels == 3
    return {
        "image_processor_type": "ViTImageProcessor",
        "do_resize": True,
        "size": {"height": height, "width": width},
        "resample": 2,
        "do_rescale": True,
        "rescale_factor": 1 / 255,
        "do_normalize": True,
        "image_mean": IMAGENET_MEAN if colour else [0.5] * channels,
        "image_std": IMAGENET_STD if colour else [0.5] * channels,
    }


def _shape(config: dict[str, Any]) -> tuple[int, int, int]:
    """Channels, height and width that a backbone's config names; 3 × 224 × 224 where it does not."""
    size = config.get("image_size") or 224
    height, width = (size, size) if isinstance(size, int) else size
    return config.get("num_channels", 3), height, width


def _kind(config: dict[str, Any]) -> str:
    """ "ViT" of ViTImageProcessor, ViTImageProcessorFast or ViTFeatureExtractor."""
    name = config.get("image_processor_type") or config.get("feature_extractor_type") or ""
    return name.split("ImageProcessor")[0].split("FeatureExtractor")[0]


def _keeps_proportions(kind: str) -> bool:
    return kind in (*CROP_SHARES, "Bit", "CLIP", "ChineseCLIP", "MobileNetV1", "MobileNetV2", "MobileViT")


def _pair(size: Any, path: Path) -> tuple[int, int]:
    if isinstance(size, int):
        return size, size
    if isinstance(size, list) and len(size) == 2:
        return size[0], size[1]
    if isinstance(size, dict) and "height" in size and "width" in size:
        return size["height"], size["width"]
    if isinstance(size, dict) and "shortest_edge" in size:
        return size["shortest_edge"], size["shortest_edge"]
    raise _unknown(path, f"size: {size}")


def _unknown(path: Path, found: str) -> ArtifactError:
    return ArtifactError(
        "the backbone's image processor is not supported",
        file=path,
        found=found,
        expected="scaling, cutting out the middle, and normalising",
        fix="take a backbone for image classification",
    )
