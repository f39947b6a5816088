"""How several devices share a stage that is planned: what each keeps, what it holds besides for a while, and how long they talk."""

from __future__ import annotations

from dataclasses import dataclass

from tunewright.hardware.machines import Hardware
from tunewright.models.core.network import Network
from tunewright.pipeline.build.parts import StageParts
from tunewright.pipeline.session.memory import tensor_bytes
from tunewright.pipeline.strategies.auto_strategy import strategy_for
from tunewright.planning.dry_run import DryRun

# What devices divide among them where each does not hold the whole.
DIVIDED = ("weights", "gradients", "optimiser")
FLOAT32 = 4


@dataclass(frozen=True, kw_only=True)
class Division:
    """Of one device among several."""

    share: float
    """The part of weights, gradients and optimiser's state that it keeps."""
    gathered: int
    """Bytes of weights and gradients that are whole on it for a while."""
    seconds: float
    """In which the devices tell each other, and the processor's memory, of a step."""


def division(parts: StageParts, dry_run: DryRun, machine: Hardware, rows: int, pieces: int) -> Division:
    """Whole on each device, gradients are added up: 2 (n − 1)/n of their bytes come and go (Patarasuk and Yuan 2009). Divided, weights
    are fetched twice besides (Rajbhandari et al. 2020, section 7: half as much again).

    With `hardware.offload` what a device keeps waits in the processor's memory: its part of the weights comes twice and its gradients go
    once, and the processor takes the step, which reads and writes all it keeps; that is reckoned at the rate of the way there.

    Args:
        rows: devices that have other rows than one another; pieces: those that divide each layer of a gpt.
    """
    recipe, network = parts.recipe, dry_run.session.network
    if machine.devices == 1:
        return Division(share=1.0, gathered=0, seconds=0.0)
    strategy = strategy_for(recipe, parts.tune, network, machine.memory)
    gradients = tensor_bytes(value for value in network.parameters() if value.requires_grad)
    kept = tensor_bytes([*network.parameters(), *dry_run.session.remembered])
    talk = 2 * (rows - 1) / rows * gradients / machine.link if machine.link else 0.0
    if pieces > 1:
        talk += _sums_of_layers(dry_run, machine, pieces)
    if strategy == "ddp" or (rows == 1 and not recipe.hardware.offload):
        return Division(share=1.0, gathered=0, seconds=talk)
    weights = sum(value.numel() for value in network.parameters()) * _travelling(network)
    talk += (rows - 1) / rows * 2 * weights / machine.link if machine.link else 0.0
    if not recipe.hardware.offload:
        return Division(share=1 / rows, gathered=gathered(network), seconds=talk)
    waits = (2 * weights + gradients + 2 * kept) / rows / machine.host if machine.host else 0.0
    return Division(share=0.0, gathered=gathered(network), seconds=talk + waits)


def gathered(network: Network) -> int:
    """Bytes of a divided network that are whole on a device at once: the layer that is computed and the one that is fetched meanwhile, all
    that is in no layer, and the gradients of one of them on their way, in float32."""
    layers = [block.parameters().values() for block in network.shardable_blocks()]
    inside = {id(value) for layer in layers for value in layer}
    rest = [value for value in network.parameters() if id(value) not in inside]
    largest = max((sum(value.numel() for value in layer) for layer in layers), default=0)
    moving = max(sum(value.numel() for value in unit if value.requires_grad) for unit in [*layers, rest])
    return 2 * largest * _travelling(network) + FLOAT32 * (sum(value.numel() for value in rest) + moving)


def _travelling(network: Network) -> int:
    """Bytes of a weight on its way."""
    dtype = network.communication_dtype
    return FLOAT32 if dtype is None else dtype.itemsize


def _sums_of_layers(dry_run: DryRun, machine: Hardware, pieces: int) -> float:
    """Seconds in which the devices that divide a gpt's layers add up what each made of them, in a step.

    Two sums of all tokens' states on the way there and two on the way back (Shoeybi et al. 2019, section 3), and those of the way there
    once more where it is computed again.
    """
    session, sizes = dry_run.session, dry_run.sizes
    # Each part of a layer ends with one matrix divided by columns, whose outputs are summed.
    plan = session.network.tensor_parallel_plan()
    width = sum(matrix.out_features for _, matrices in plan for matrix, dim in matrices if dim == 1)
    states = sum(sizes) / len(sizes) * width * (2 if session.precision == "bfloat16" else 4)
    share = (pieces - 1) / pieces
    return (3 if session.recomputes else 2) * 2 * share * states / machine.link if machine.link else 0.0
