"""Run each kind of stage once undisturbed, for all tests of a module."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from killed_runs import StageKind, exit_code, record_calls, run_content
from tunewright.console import silent
from tunewright.run_recipe import run


@pytest.fixture(scope="module")
def kinds(tmp_path_factory: pytest.TempPathFactory) -> Callable[[Callable[[Path], dict[str, Any]]], StageKind]:
    """Return a function that gives a kind of stage with the result of its undisturbed run, which is made once."""
    known: dict[str, StageKind] = {}

    def get(make: Callable[[Path], dict[str, Any]]) -> StageKind:
        if make.__name__ not in known:
            torch.set_num_threads(1)
            place = tmp_path_factory.mktemp(make.__name__)
            kind = known[make.__name__] = StageKind(make(place), place)
            # In this process first: the forked processes then find all late imports done.
            run({**kind.recipe, "name": "killed"}, base=place, runs=place / "first", console=silent())
            began = time.monotonic()
            assert exit_code(kind.start(record_calls(place / "calls.txt"))) == 0, (place / "error.txt").read_text()
            kind.seconds = time.monotonic() - began
            kind.calls = (place / "calls.txt").read_text().splitlines()
            kind.content = run_content(kind.folder)
        kind = known[make.__name__]
        kind.start_anew()
        return kind

    return get
