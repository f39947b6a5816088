"""kill -9 at any moment of any kind of stage, also after its last step: the same command ends with the same result.

Each run is carried out in a process that is forked from this one. It is killed at random moments, and at each call by
which it changes what is on the disk (a rename, a sync, a new folder, a deletion), wherever that is.
"""

from __future__ import annotations

import os
import random
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from killed_runs import StageKind, exit_code, kill_before_call
from stage_kinds import CHEAP, KINDS, picture
from tunewright.pipeline.train import progress as training
from tunewright.training.checkpoints.async_saver import Saver


def kill_at_random(kind: StageKind, kills: int, seed: int) -> None:
    moments = random.Random(seed)
    struck = attempts = 0
    while struck < kills:
        attempts += 1
        assert attempts < 50, "the kills come too late"
        kind.start_anew()
        for _ in range(4):  # so often in one run at most
            child = kind.start()
            time.sleep(moments.uniform(0, kind.seconds))
            os.kill(child, signal.SIGKILL)
            struck += (code := exit_code(child)) == -signal.SIGKILL
            assert code in (0, -signal.SIGKILL), (kind.place / "error.txt").read_text()
            if kind.complete or struck >= kills:
                break
        kind.finish()


def kill_after_the_last_step(kind: StageKind, kills: int) -> None:
    steps = [index for index, call in enumerate(kind.calls, 1) if call.startswith("replace step-")]
    first = steps[-1] + 1 if steps else 1
    points = np.unique(np.linspace(first, len(kind.calls), kills).round().astype(int)).tolist()
    for point in points:
        kind.start_anew()
        code = exit_code(kind.start(kill_before_call(point)))
        assert code == -signal.SIGKILL, f"call {point}, {kind.calls[point - 1]}: {code}"
        kind.finish()


@pytest.mark.parametrize("make", CHEAP)
def test_killed_at_a_random_moment(kinds: Any, make: Callable[[Path], dict[str, Any]]) -> None:
    kill_at_random(kinds(make), 2, seed=0)


@pytest.mark.parametrize("make", CHEAP)
def test_killed_after_the_last_step(kinds: Any, make: Callable[[Path], dict[str, Any]]) -> None:
    kill_after_the_last_step(kinds(make), 2)


def test_killed_while_a_thread_writes(kinds: Any) -> None:
    """As on an accelerator, where the training goes on while its checkpoint is written."""

    def beside(then: Callable[[], None]) -> Callable[[], None]:
        def arrange() -> None:
            training.Saver = lambda root, *, beside, together: Saver(root, beside=True, together=together)
            then()

        return arrange

    kind = kinds(picture)
    saves = [index for index, call in enumerate(kind.calls, 1) if call.startswith("replace step-")]
    for number in (saves[2], saves[4] - 3, saves[6] + 1):
        kind.start_anew()
        assert exit_code(kind.start(beside(kill_before_call(number)))) == -signal.SIGKILL
        kind.finish()


@pytest.mark.slow
@pytest.mark.parametrize("make", KINDS)
def test_killed_twenty_times_at_random(kinds: Any, make: Callable[[Path], dict[str, Any]]) -> None:
    kill_at_random(kinds(make), 20, seed=1)


@pytest.mark.slow
@pytest.mark.parametrize("make", KINDS)
def test_killed_at_twenty_points_after_the_last_step(kinds: Any, make: Callable[[Path], dict[str, Any]]) -> None:
    kill_after_the_last_step(kinds(make), 20)
