"""What the tests of whole runs share: each kind of stage, carried out once undisturbed."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from killed_runs import Kind, content, ended, noting
from tunewright.console import silent
from tunewright.run_recipe import run


@pytest.fixture(scope="module")
def kinds(tmp_path_factory: pytest.TempPathFactory) -> Callable[[Callable[[Path], dict[str, Any]]], Kind]:
    """Makes a kind's undisturbed run, once."""
    known: dict[str, Kind] = {}

    def get(make: Callable[[Path], dict[str, Any]]) -> Kind:
        if make.__name__ not in known:
            torch.set_num_threads(1)
            place = tmp_path_factory.mktemp(make.__name__)
            kind = known[make.__name__] = Kind(make(place), place)
            # In this process, so that what is imported late is there in those that are forked from it.
            run({**kind.recipe, "name": "killed"}, base=place, runs=place / "first", screen=silent())
            began = time.monotonic()
            assert ended(kind.start(noting(place / "calls.txt"))) == 0, (place / "error.txt").read_text()
            kind.seconds = time.monotonic() - began
            kind.calls = (place / "calls.txt").read_text().splitlines()
            kind.content = content(kind.folder)
        kind = known[make.__name__]
        kind.start_anew()
        return kind

    return get
