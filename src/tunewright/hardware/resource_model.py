"""What a stage needs, as plain data; a sum of its memory in closed form beside the one that was traced; and what its time costs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from tunewright.hardware.machines import Hardware

Basis = Literal["measured here", "operation by operation", "roofline"]
# How far the time may lie from the estimate, down and up. Operation by operation: benchmarks/results/plan_accuracy.md.
RANGES: dict[Basis, tuple[float, float]] = {
    "measured here": (0.9, 1.15),
    "operation by operation": (0.75, 1.6),
    "roofline": (0.6, 2.0),
}
# What a process takes besides its tensors and what it had before the first step, as a share of the tensors at their peak and at most so
# many bytes: what was freed and not given back, what the libraries of products hold. Least, usual, most; from
# benchmarks/results/plan_accuracy.md. On a card it is what CUDA holds for itself.
BESIDES = ((0.3, 40 * 2**20), (2.5, 182 * 2**20), (6.0, 2**30))
CUDA = (2**29, 2**30, 3 * 2**29)
# What a process holds after a long time, as a share of what it held at most in a few seconds: memory that was freed is not always given out again,
# least of all where batches differ in length: eleven such stages of benchmarks/plan_accuracy.py held 6 % less to 15 % more in 20 s than in 4.
GROWN, GROWN_LENGTHS = (0.97, 1.0, 1.25), (0.97, 1.05, 1.25)
# What the libraries of products and of memory keep for each further length that batches have: benchmarks/plan_accuracy.py, ten stages of texts
# and recordings on three kinds of processor.
EACH_LENGTH = (0.0, 6 * 2**20, 13 * 2**20)


@dataclass(frozen=True, kw_only=True)
class Span:
    """A number with its range."""

    low: float
    middle: float
    high: float

    def times(self, factor: float) -> Span:
        return Span(low=factor * self.low, middle=factor * self.middle, high=factor * self.high)

    def plus(self, other: Span) -> Span:
        return Span(low=self.low + other.low, middle=self.middle + other.middle, high=self.high + other.high)


@dataclass(frozen=True, kw_only=True)
class StagePlan:
    """What a stage needs. Bytes, seconds, floating-point operations, kilowatt hours, grams, dollars."""

    stage: str
    machine: str
    parameters: int
    trained: int
    blocks: dict[str, int]
    """The parameters of each block."""
    steps: int
    examples: int
    """In an epoch."""
    flops_per_step: float
    flops: float
    """Of all steps."""
    precision: str
    recomputes: bool
    """Activations are computed again in the backward pass."""
    peak: int
    """The most that tensors take at once."""
    peak_parts: dict[str, int]
    """What they are at that moment."""
    peak_at: str
    """The phase and the operation."""
    closed_form: int
    """Weights, gradients, the optimiser's memory and activations added up, without looking at any moment."""
    process: Span
    """All memory of the process, or of the card."""
    memory: int
    """That there is, of one device."""
    step: Span
    seconds: Span
    """All steps, what is computed before them, and validation."""
    per_second: float
    """Examples a second while it trains."""
    basis: Basis
    measured: float
    """Of the step's time the share that was measured and not estimated."""
    disk: dict[str, int]
    energy: Span
    carbon: Span
    cost: Span

    @property
    def fits(self) -> bool:
        return self.process.middle <= self.memory


def closed_form(weights: int, trained: int, state: int, activations: int, examples: int) -> int:
    """Bytes of weights and gradients, of what the optimiser remembers, and of the activations of so many examples.

    As in Rajbhandari et al. 2020 ("ZeRO", section 3), with activations in place of their residual states.
    """
    return weights + trained + state + activations * examples


def process_memory(tensors: float, before: float, encoding: float, lengths: int) -> Span:
    """All memory of a process at its peak, where no real step was taken.

    Args:
        tensors: bytes of tensors at their peak.
        before: what the process held before the first step.
        encoding: what it held at most while it made tensors of the data.
        lengths: how many lengths batches have.
    """
    others = max(0, lengths - 1)
    around = [min(share * tensors, most) + others * kept for (share, most), kept in zip(BESIDES, EACH_LENGTH)]
    low, middle, high = (max(encoding, before + tensors + more) for more in around)
    return Span(low=low, middle=middle, high=high)


def process_grown(held: float, lengths: int, *, vary: bool) -> Span:
    """All memory of a process at its peak, from what it held at most in some real steps.

    Args:
        lengths: how many lengths batches have that were not among those steps.
        vary: examples differ in length.
    """
    grown = GROWN_LENGTHS if vary else GROWN
    around = [share * held + max(0, lengths) * kept for share, kept in zip(grown, EACH_LENGTH)]
    return Span(low=around[0], middle=around[1], high=around[2])


def process_on_card(tensors: float) -> Span:
    """All memory of a card at the peak of its tensors."""
    low, middle, high = (tensors + more for more in CUDA)
    return Span(low=low, middle=middle, high=high)


def costs(seconds: Span, hardware: Hardware) -> dict[str, Span]:
    """Energy in kWh, carbon dioxide in g, dollars; of all devices.

    Energy is power times time times what the building takes besides (Patterson et al. 2021, "Carbon emissions and large neural
    network training", section 2.2).
    """
    hours = seconds.times(hardware.devices / 3600)
    energy = hours.times(hardware.watts * hardware.building / 1000)
    low, high = hardware.usd_per_hour
    cost = Span(low=hours.low * low, middle=hours.middle * (low + high) / 2, high=hours.high * high)
    return {"energy": energy, "carbon": energy.times(hardware.grams_per_kwh), "cost": cost}


def span(middle: float, basis: Basis) -> Span:
    """An estimate with the range of its basis."""
    low, high = RANGES[basis]
    return Span(low=low * middle, middle=middle, high=high * middle)
