"""Where the work on pieces of data is done: in this process, or by the workers of a Ray cluster.

Results come in the order of the pieces, whoever does the work: the prepared data is the same to the byte.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import chdir
from importlib import import_module
from typing import Any, Literal, TypeVar

from tunewright.errors import RecipeError
from tunewright.files import cache_dir

S = TypeVar("S")
P = TypeVar("P")
R = TypeVar("R")

Engine = Literal["local", "ray"]
# Pieces that each worker has at most, the one at which it works among them: memory does not grow with the data.
WAITING = 2


def worked(engine: Engine, work: Callable[[S, P], R], shared: S, pieces: Iterable[P]) -> Iterator[tuple[P, R]]:
    """Each piece with what `work(shared, piece)` makes of it.

    Args:
        work: a function of a module, which the workers import; `shared` is sent to them once.

    Raises:
        RecipeError: Ray is wanted and not installed.
    """
    if engine == "local":
        for piece in pieces:
            yield piece, work(shared, piece)
        return
    ray = _ray()
    place, task = ray.put(shared), ray.remote(work)
    most = WAITING * max(1, int(ray.cluster_resources().get("CPU", 1)))
    waiting: deque[tuple[P, Any]] = deque()
    for piece in pieces:
        waiting.append((piece, task.remote(place, piece)))
        if len(waiting) >= most:
            first, found = waiting.popleft()
            yield first, ray.get(found)
    for first, found in waiting:
        yield first, ray.get(found)


def _ray() -> Any:
    """Ray, joined to the cluster that RAY_ADDRESS names, or else to workers that are started here."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # no usage data is sent
    try:
        ray = import_module("ray")
    except ImportError:
        raise RecipeError(
            "Ray is not installed", place="--engine", found="ray", expected="local", fix="pip install ray"
        ) from None
    if not ray.is_initialized():
        # Its workers look for modules in the folder that it is joined from, which may be a stranger's.
        empty = cache_dir() / "ray"
        empty.mkdir(parents=True, exist_ok=True)
        with chdir(empty):
            ray.init(include_dashboard=False, log_to_driver=False, configure_logging=False)
    return ray
