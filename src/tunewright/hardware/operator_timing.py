"""How long operations take on this machine: each different one is carried out again, by itself, on tensors of the same shapes.

What takes long by its size alone is not tried but estimated from the machine's rates, so that a network of any size is timed in
seconds. The estimate of the others is corrected by how far it was off for those that were tried.
"""

from __future__ import annotations

import math
import time
from collections import Counter
from dataclasses import dataclass
from statistics import median_high
from typing import Any

import torch
from torch.utils._pytree import tree_map

from tunewright.hardware.machines import Hardware
from tunewright.hardware.memory_tracer import Call, Carried, Like
from tunewright.hardware.roofline import seconds_of

# An operation is tried if it should take less, in seconds, and its tensors are smaller, in bytes.
LONGEST, LARGEST = 0.1, 2**28
# Each is tried so often at least, and so many seconds at most, after a first time that does not count.
LEAST, EACH = 3, 0.02
# Values that neither overflow nor vanish when an operation is repeated in place.
FILL = 0.5


@dataclass(frozen=True, kw_only=True)
class Timed:
    """What operations take."""

    seconds: dict[Call, float]
    """Of each, once."""
    measured: float
    """The share of the time that was measured and not estimated."""

    def total(self, calls: Counter[Call]) -> float:
        """Of all of them."""
        return sum(number * self.seconds[call] for call, number in calls.items())


def time_calls(calls: Counter[Call], examples: dict[Call, Carried], machine: Hardware, *, budget: float = 8.0) -> Timed:
    """Try the operations that should matter most, for so many seconds."""
    estimated = {call: seconds_of(call, machine) for call in calls}
    order = sorted(calls, key=lambda call: -calls[call] * estimated[call])
    found: dict[Call, float] = {}
    began = time.perf_counter()
    for call in order:
        if time.perf_counter() - began > budget:
            break
        if estimated[call] > LONGEST or call.bytes > LARGEST:
            continue
        tried = _seconds(examples[call])
        if tried is not None:
            found[call] = tried
    known = sum(calls[call] * found[call] for call in found)
    believed = sum(calls[call] * estimated[call] for call in found)
    correction = known / believed if believed > 0 else 1.0
    seconds = {call: found.get(call, estimated[call] * correction) for call in calls}
    total = sum(calls[call] * seconds[call] for call in calls)
    return Timed(seconds=seconds, measured=known / total if total else 1.0)


def _seconds(carried: Carried) -> float | None:
    """The median; None where the operation does not take such tensors."""
    try:
        args, kwargs = tree_map(_made, (carried.args, carried.kwargs))
        times: list[float] = []
        began = time.perf_counter()
        with torch.no_grad():
            carried.function(*args, **kwargs)
            while len(times) < LEAST or (time.perf_counter() - began < EACH and len(times) < 50):
                started = time.perf_counter()
                carried.function(*args, **kwargs)
                times.append(time.perf_counter() - started)
                if sum(times) > 10 * EACH:
                    break
    except (RuntimeError, ValueError, IndexError, NotImplementedError, TypeError):
        return None
    return median_high(times)


def _made(value: Any) -> Any:
    if not isinstance(value, Like):
        return value
    if not value.stride and value.shape:
        raise ValueError("only tensors in one piece are made again")
    size = (
        1 + sum((length - 1) * step for length, step in zip(value.shape, value.stride)) if math.prod(value.shape) else 0
    )
    fill = FILL if value.dtype.is_floating_point else 0
    return torch.full((size,), fill, dtype=value.dtype).as_strided(value.shape, value.stride)
