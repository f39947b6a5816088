"""How long an operation takes by its size: as long as its arithmetic or its memory needs, whichever is more.

Williams, Waterman and Patterson 2009, "Roofline: an insightful visual performance model", section 3; with a rate that depends on
the size, the time to find new memory, and what each operation takes besides.
"""

from __future__ import annotations

import math

from tunewright.hardware.machines import Curve, Hardware
from tunewright.hardware.memory_tracer import Call, Tracer


def seconds_of(call: Call, hardware: Hardware) -> float:
    """Of one operation, on one device; without what each takes besides on a processor."""
    kinds = hardware.convolutions if "convolution" in call.name else hardware.products
    curve = kinds.get(call.dtype) or kinds["float32"]
    arithmetic = call.flops / rate_at(curve, call.flops) if call.flops else 0.0
    memory = call.bytes / rate_at(hardware.moving, call.bytes) if call.bytes else 0.0
    if call.new and hardware.allocating:
        memory += call.new / rate_at(hardware.allocating, call.new)
    needed = max(arithmetic, memory)
    return needed if hardware.besides else max(needed, hardware.overhead)


def besides(tracer: Tracer, hardware: Hardware) -> float:
    """What a step takes besides its operations."""
    if not hardware.besides:
        return hardware.each_step
    return hardware.each_step + hardware.overhead * (tracer.all_calls().total() + tracer.views)


def rate_at(curve: Curve, size: float) -> float:
    """Between two sizes that were measured the rate goes evenly in the logarithm of both; beyond them it stays."""
    if size <= curve[0][0]:
        return curve[0][1]
    for (low, slow), (high, fast) in zip(curve, curve[1:]):
        if size <= high:
            share = math.log(size / low) / math.log(high / low)
            return slow * (fast / slow) ** share
    return curve[-1][1]
