"""How long a stage that was rehearsed takes, on this machine or another, on one device or several."""

from __future__ import annotations

from tunewright.models.transformer import Transformer
from tunewright.planning.hardware import Hardware
from tunewright.planning.needs import CUDA, Basis, Span, span
from tunewright.planning.replay import LONGEST, time_calls
from tunewright.planning.roofline import besides, seconds_of
from tunewright.planning.tracing import Tracer
from tunewright.stages.rehearsal import Rehearsal, Timed

# Seconds for which operations are tried one by one, where a step should take less than so many.
TRIED, LONG = 4.0, 60.0


def step_time(rehearsal: Rehearsal, real: Timed | None, machine: Hardware) -> tuple[Span, Basis, float]:
    """Seconds of a step, on what that is based, and which share of it was measured.

    Args:
        real: steps that were taken here; None: none were.
    """
    if real is not None:
        ordered = sorted(real.seconds)
        mean = sum(ordered) / len(ordered)
        tenth = len(ordered) // 10
        low, high = ordered[tenth], ordered[-1 - tenth]
        reading = Span(low=rehearsal.reading, middle=rehearsal.reading, high=rehearsal.reading)
        return Span(low=min(low, mean), middle=mean, high=max(high, mean)).plus(reading), "measured here", 1.0
    usual = rehearsal.usual
    rough = estimated(usual, machine)
    if not machine.measured or rough > LONG:
        return span(rehearsal.scale * rough, "roofline"), "roofline", 0.0
    calls = usual.all_calls()
    timed = time_calls(calls, usual.examples, machine, budget=TRIED)
    seconds = timed.total(calls) * machine.together * rehearsal.scale + besides(usual, machine) + rehearsal.reading
    basis: Basis = "operation by operation" if timed.measured > 0.5 else "roofline"
    return span(seconds, basis), basis, timed.measured


def other_times(rehearsal: Rehearsal, machine: Hardware) -> tuple[float, float]:
    """Seconds for the frozen part, in all, and for validation, each epoch."""
    found: list[float] = []
    for part in (rehearsal.frozen, rehearsal.validation):
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


# What devices divide among them where none could hold it all.
DIVIDED = ("weights", "gradients", "optimiser")


def divided(most: Tracer, machine: Hardware, count: int, gradients: int) -> tuple[float, float]:
    """The share of weights, gradients and optimiser's state that one device keeps, and the seconds in which the devices tell each other of
    a step.

    Where all fits, each holds the whole and gradients are added up: 2 (n − 1)/n of their bytes come and go (Patarasuk and Yuan
    2009). Where it does not, weights, gradients and state are divided among them and weights are fetched twice (Rajbhandari et
    al. 2020, section 7: half as much again).

    Args:
        count: devices that have other rows than one another.
    """
    if count == 1:
        return 1.0, 0.0
    traffic = 2 * (count - 1) / count * gradients / machine.link if machine.link else 0.0
    if most.most + CUDA[-1] <= machine.memory:
        return 1.0, traffic
    return 1 / count, 1.5 * traffic


def sums_of_layers(rehearsal: Rehearsal, machine: Hardware, pieces: int) -> float:
    """Seconds in which the devices that divide a gpt's layers add up what each made of them, in a step.

    Two sums of all tokens' states on the way there and two on the way back (Shoeybi et al. 2019, section 3), and those of the way there
    once more where it is computed again.
    """
    ready = rehearsal.ready
    assert isinstance(ready.network, Transformer)
    config, sizes = ready.network.core.config, rehearsal.sizes
    states = sum(sizes) / len(sizes) * config.hidden_size * (2 if ready.precision == "bfloat16" else 4)
    sums = config.num_hidden_layers * (6 if ready.recomputes else 4)
    share = (pieces - 1) / pieces
    return sums * 2 * share * states / machine.link if machine.link else 0.0
