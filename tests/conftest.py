"""Give all tests a cache of their own, one thread, and run-time checks of shapes and types."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from jaxtyping import install_import_hook

# Before torch is imported: two test processes share two cores. One cache for all: the data is prepared once.
os.environ["OMP_NUM_THREADS"] = "1"
os.environ["TUNEWRIGHT_CACHE"] = str(Path(tempfile.gettempdir()) / f"tunewright-tests-{os.getuid()}")
os.environ["HF_HUB_OFFLINE"] = "1"

# Checks every argument and return value in these rooms, tensor shapes included.
ROOMS = ("core", "exchange", "language", "recommendation", "speech", "vision")
install_import_hook(
    [
        *(f"tunewright.models.{room}" for room in ROOMS),
        "tunewright.training.objectives",
        "tunewright.training.optimizers",
    ],
    "shape_checks.checked",
)


@pytest.fixture
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An empty cache, for tests of the cache itself."""
    monkeypatch.setenv("TUNEWRIGHT_CACHE", str(tmp_path / "cache"))
    yield tmp_path / "cache"
