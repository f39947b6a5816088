"""A plan as people read it."""

from __future__ import annotations

from collections.abc import Callable

from rich.table import Table

from tunewright.hardware.resource_model import Span, StagePlan

# Beyond so much the sum in closed form and the traced peak disagree, and both are shown.
APART = 0.15


def plan_table(plan: StagePlan) -> Table:
    """One stage's plan."""
    table = Table(
        title=f"{plan.stage}, on {plan.machine}", title_justify="left", box=None, pad_edge=False, show_header=False
    )
    frozen = plan.parameters - plan.trained
    disk = ", ".join(f"{name} {size_of(size)}" for name, size in plan.disk.items())
    rows = [
        (
            "parameters",
            f"{plan.parameters:,}: {plan.trained:,} trained, {frozen:,} frozen; computed in {plan.precision}",
        ),
        ("steps", f"{plan.steps:,}, of {plan.examples:,} examples an epoch"),
        ("operations", f"{plan.flops_per_step:.3g} floating-point operations a step, {plan.flops:.3g} in all"),
        (
            "memory",
            f"{ranged(plan.process, size_of)} of {size_of(plan.memory)}: {'fits' if plan.fits else 'DOES NOT FIT'}",
        ),
        ("  of it tensors", f"{size_of(plan.peak)} at most: {parts_of(plan)}"),
        ("  at", plan.peak_at),
    ]
    if abs(plan.closed_form / plan.peak - 1) > APART:
        rows.append(
            ("  added up", f"{size_of(plan.closed_form)} by weights, gradients, optimiser and activations alone")
        )
    rows += [
        ("a step", f"{ranged(plan.step, duration)}, {plan.basis}"),
        (
            "training",
            f"{ranged(plan.seconds, duration)}, {rate(plan.per_second)} examples a second; evaluation comes on top",
        ),
        ("disk", f"{size_of(sum(plan.disk.values()))}: {disk}"),
        ("energy", f"{ranged(plan.energy, energy)}, {ranged(plan.carbon, grams)} of CO₂"),
    ]
    if plan.cost.high:
        rows.append(("rent", ranged(plan.cost, dollars)))
    for row in rows:
        table.add_row(*row)
    return table


def parts_of(plan: StagePlan) -> str:
    """What memory goes to at the peak, the most first."""
    parts = sorted(plan.peak_parts.items(), key=lambda part: -part[1])
    return ", ".join(f"{name} {size_of(size)}" for name, size in parts)


def ranged(span: Span, write: Callable[[float], str]) -> str:
    """The middle, and the range where it is written otherwise."""
    low, middle, high = (write(value) for value in (span.low, span.middle, span.high))
    return middle if low == high else f"{middle} ({low} to {high})"


def size_of(number: float) -> str:
    """Bytes."""
    for unit, size in (("TiB", 2**40), ("GiB", 2**30), ("MiB", 2**20), ("KiB", 2**10)):
        if number >= size:
            return f"{number / size:,.1f} {unit}"
    return f"{number:.0f} bytes"


def duration(seconds: float) -> str:
    """In the unit that suits it."""
    for unit, size in (("years", 365 * 86_400.0), ("days", 86_400.0), ("h", 3600.0), ("min", 60.0)):
        if seconds >= 1.5 * size:
            return f"{seconds / size:,.1f} {unit}"
    return f"{seconds:.1f} s" if seconds >= 1 else f"{1000 * seconds:.2f} ms"


def rate(number: float) -> str:
    """So many a second."""
    return f"{number:,.0f}" if number >= 10 else f"{number:.3g}"


def energy(kilowatt_hours: float) -> str:
    """In Wh, kWh or MWh."""
    if kilowatt_hours < 1:
        return f"{1000 * kilowatt_hours:,.3g} Wh"
    return f"{kilowatt_hours:,.1f} kWh" if kilowatt_hours < 1000 else f"{kilowatt_hours / 1000:,.1f} MWh"


def grams(value: float) -> str:
    """In g, kg or t."""
    if value < 1000:
        return f"{value:,.3g} g"
    return f"{value / 1000:,.1f} kg" if value < 1e6 else f"{value / 1e6:,.1f} t"


def dollars(value: float) -> str:
    """In US dollars."""
    return f"${value:,.2f}" if value < 100 else f"${value:,.0f}"
