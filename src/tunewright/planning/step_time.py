"""How long a stage takes, by its dry run, on this machine or another."""

from __future__ import annotations

from tunewright.hardware.machines import Hardware
from tunewright.hardware.memory_tracer import Tracer
from tunewright.hardware.operator_timing import LONGEST, time_calls
from tunewright.hardware.resource_model import Basis, Span, span
from tunewright.hardware.roofline import besides, seconds_of
from tunewright.planning.dry_run import DryRun, Timed

# Seconds for which operations are tried one by one, where a step should take less than so many.
TRIED, LONG = 4.0, 60.0


def step_time(dry_run: DryRun, real: Timed | None, machine: Hardware) -> tuple[Span, Basis, float]:
    """Seconds of a step, on what that is based, and which share of it was measured.

    Args:
        real: steps that were taken here; None: none were.
    """
    if real is not None:
        ordered = sorted(real.seconds)
        mean = sum(ordered) / len(ordered)
        tenth = len(ordered) // 10
        low, high = ordered[tenth], ordered[-1 - tenth]
        reading = Span(low=dry_run.reading, middle=dry_run.reading, high=dry_run.reading)
        return Span(low=min(low, mean), middle=mean, high=max(high, mean)).plus(reading), "measured here", 1.0
    usual = dry_run.usual
    rough = estimated(usual, machine)
    if not machine.measured or rough > LONG:
        return span(dry_run.scale * rough, "roofline"), "roofline", 0.0
    calls = usual.all_calls()
    timed = time_calls(calls, usual.examples, machine, budget=TRIED)
    seconds = timed.total(calls) * machine.together * dry_run.scale + besides(usual, machine) + dry_run.reading
    basis: Basis = "operation by operation" if timed.measured > 0.5 else "roofline"
    return span(seconds, basis), basis, timed.measured


def other_times(dry_run: DryRun, machine: Hardware) -> tuple[float, float]:
    """Seconds for the frozen part, in all, and for validation, each epoch."""
    found: list[float] = []
    for part in (dry_run.frozen, dry_run.validation):
        if part is None:
            found.append(0.0)
            continue
        tracer, passes = part
        calls = tracer.all_calls()
        if machine.measured and estimated(tracer, machine) < 10 * LONGEST:
            each = time_calls(calls, tracer.examples, machine, budget=TRIED / 4).total(calls) * machine.together
        else:
            each = estimated(tracer, machine)
        found.append(passes * (each + besides(tracer, machine)))
    return found[0], found[1]


def estimated(tracer: Tracer, machine: Hardware) -> float:
    """By the sizes of its operations alone."""
    calls = tracer.all_calls()
    return machine.together * sum(number * seconds_of(call, machine) for call, number in calls.items()) + besides(
        tracer, machine
    )
