"""Run `tunewright doctor`: check this installation and machine, and show how to install what is missing."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, distribution, requires, version

import torch
from packaging.requirements import Requirement
from packaging.version import Version

from tunewright.console import Console
from tunewright.files import cache_dir
from tunewright.limits import LIMITS

# The purpose of each extra.
EXTRAS = {
    "hub": "data sets of the Hugging Face hub",
    "privacy": "differentially private training",
    "tune": "hyperparameter search",
    "quantize": "4-bit quantization and 8-bit optimizers",
    "export": "export to ONNX and GGUF",
    "serve": "the HTTP service, and the page of all runs",
}
ROOM = 10 * 2**30


@dataclass(frozen=True, kw_only=True)
class Finding:
    """Report one check."""

    what: str
    found: str
    fix: str | None = None
    needed: bool = True
    """Whether Tunewright needs it."""


def findings() -> Iterator[Finding]:
    """Yield the checks of versions, packages, hardware, disk and limits."""
    yield Finding(what="Python", found=sys.version.split()[0])
    for requirement in _required(None):
        yield _package(requirement, "pip install --upgrade tunewright")
    for extra, purpose in EXTRAS.items():
        wrong = [found for found in (_package(part, "") for part in _required(extra)) if found.fix is not None]
        names = ", ".join(found.what for found in wrong)
        fix = f'pip install "tunewright[{extra}]"' if wrong else None
        yield Finding(
            what=f"{purpose} [{extra}]", found=f"missing: {names}" if wrong else "installed", fix=fix, needed=False
        )
    cards = [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())]
    if torch.backends.mps.is_available():
        cards.append("Apple's")
    yield Finding(what="accelerators", found=", ".join(cards) or "none: networks run on the processor", needed=False)
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    yield Finding(
        what="processor",
        found=f"{os.cpu_count()} cores, {torch.get_num_threads()} threads, {memory / 2**30:.0f} GiB of memory",
    )
    cache = cache_dir()
    there = next(folder for folder in (cache, *cache.parents) if folder.exists())
    free = shutil.disk_usage(there).free
    writable = os.access(there, os.W_OK)
    yield Finding(
        what="cache",
        found=f"{cache}, {free / 2**30:.0f} GiB free" + ("" if writable else ", cannot be written"),
        fix=None if writable and free > ROOM else "TUNEWRIGHT_CACHE=/a/larger/disk",
        needed=not writable,
    )
    for limit in LIMITS:
        changed = f" (default {limit.default:,})" if limit.value != limit.default else ""
        yield Finding(
            what=f"limit: {limit.about}", found=f"{limit.value:,} {limit.unit}{changed}; {limit.variable}", needed=False
        )


def _required(extra: str | None) -> list[Requirement]:
    """Return the requirements of the package, or of one of its extras."""
    found: list[Requirement] = []
    for line in requires("tunewright") or []:
        requirement = Requirement(line)
        marker = requirement.marker
        for_extra = marker is not None and "extra" in str(marker)
        if not for_extra if extra is None else for_extra and marker is not None and marker.evaluate({"extra": extra}):
            found.append(requirement)
    return found


def _package(requirement: Requirement, fix: str) -> Finding:
    try:
        found = version(requirement.name)
    except PackageNotFoundError:
        return Finding(what=requirement.name, found="missing", fix=fix)
    good = requirement.specifier.contains(Version(found), prereleases=True)
    return Finding(
        what=requirement.name, found=found, fix=None if good else f"{fix}: {requirement.specifier} is needed"
    )


def examine(console: Console) -> bool:
    """Print all checks; return whether everything that is needed is installed."""
    complete = True
    for found in findings():
        mark = "ok  " if found.fix is None else "FIX " if found.needed else "    "
        console.info(f"{mark} {found.what:<46} {found.found}")
        if found.fix is not None:
            console.info(f"       {found.fix}")
            complete = complete and not found.needed
    console.info(
        f"tunewright {distribution('tunewright').version}: " + ("ready" if complete else "something is missing")
    )
    return complete
