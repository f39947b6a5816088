"""A plan as people read it."""

from __future__ import annotations

from collections.abc import Callable

from rich.table import Table

from tunewright.hardware.resource_model import Span, StagePlan
from tunewright.units import dollars, duration, energy, grams, rate, size_of

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
