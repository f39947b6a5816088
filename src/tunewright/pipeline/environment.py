"""environment.json: what a run depended on besides its recipe."""

from __future__ import annotations

import os
import platform
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import torch

from tunewright.data.prepared import Prepared
from tunewright.pipeline.git_commit import git_commit
from tunewright.runs.run_files import DataFile, Environment

PACKAGES = ("tunewright", "torch", "numpy", "pyarrow", "safetensors", "pydantic", "scikit-learn", "pillow")


def describe_environment(base: Path, prepared: list[Prepared]) -> Environment:
    """Describe versions, hardware, the hashes of every data file, and the git commit of the recipe's folder."""
    return Environment(
        python=sys.version.split()[0],
        platform=platform.platform(),
        processor=_processor(),
        cores=os.cpu_count(),
        memory_bytes=os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        accelerators=[torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())],
        threads=torch.get_num_threads(),
        packages={name: found for name in PACKAGES if (found := _version(name))},
        data=[DataFile(**file) for part in prepared for file in part.manifest.files],
        git_commit=git_commit(base),
    )


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _processor() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    except OSError:
        pass
    return platform.processor()
