"""`tunewright plan`: what each stage of a recipe will need, from a few of its own steps on this machine; nothing is kept."""

from __future__ import annotations

import itertools
import json
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from rich.table import Table

from tunewright.data.batching import Batches
from tunewright.models.describe import LayerRow, layer_table
from tunewright.models.dropout import quicken_dropout
from tunewright.models.narrow import narrow_last_layer
from tunewright.models.network import AnyNetwork
from tunewright.planning.tracing import Tracer
from tunewright.recipe.stages import stage_recipes
from tunewright.stages.console import Screen, silent
from tunewright.stages.design import as_if_trained
from tunewright.stages.ingredients import Ingredients, gather, prepare_data
from tunewright.stages.job import recipe_backbone
from tunewright.stages.memory import free_memory
from tunewright.stages.run import given_origin, read_recipe
from tunewright.stages.training import (
    choose_device,
    small_numbers_as_zero,
    suitable_threads,
    threads,
    training_batches,
    training_optimizer,
)
from tunewright.training import freezing
from tunewright.training.loop import set_learning_rate

# Two steps are traced: the optimiser's memory is there from the second on. Then steps are timed, so many or so long.
TRACED, TIMED, SECONDS = 2, 100, 10.0


@dataclass(frozen=True, kw_only=True)
class StagePlan:
    """What a stage needs. Bytes, seconds, floating-point operations."""

    stage: str
    parameters: int
    trained: int
    steps: int
    examples: int
    """In an epoch."""
    flops: float
    """Of all steps: a forward pass of everything, a backward pass down to the first block that is trained."""
    weights: int
    gradients: int
    optimizer: int
    peak: int
    """The most that tensors take at once."""
    peak_at: str
    """The phase and the operation at which they do."""
    step_seconds: tuple[float, float, float]
    """A step: the fastest, the median, the slowest of those that were timed."""
    seconds: tuple[float, float]
    """All steps, by the fastest and by the slowest; validation and evaluation come on top."""
    disk: int
    """The model, and two checkpoints with the best weights."""


def plan(recipe: Path, overrides: list[str], *, screen: Screen | None = None) -> list[StagePlan]:
    """Measure a few steps of each stage and print what the whole will need; no weights are kept."""
    screen = screen or Screen()
    loaded, _, _, base, _ = read_recipe(recipe, overrides, None)
    stages = stage_recipes(loaded)
    origin = given_origin(stages[0].recipe, base)
    found: list[StagePlan] = []
    for number, stage in enumerate(stages):
        backbone = recipe_backbone(stage.recipe, base)
        ingredients = gather(stage.recipe, prepare_data(stage.recipe, base, screen), origin, backbone, screen)
        if number + 1 < len(stages):
            origin = as_if_trained(ingredients)
        if ingredients.tune.method == "features":
            screen.say(f"{stage.name}: a logistic regression on frozen features, which is not planned here")
            continue
        found.append(_plan_stage(stage.name, ingredients))
        screen.console.print(_table(found[-1], free_memory(ingredients.network)))
    return found


def _plan_stage(name: str, ingredients: Ingredients) -> StagePlan:
    recipe = ingredients.recipe
    examples = ingredients.examples("train")
    assert examples is not None  # prepare refuses data without a training row
    network = ingredients.network.to(device := choose_device(recipe))
    movements = freezing.resolve_movement(network, ingredients.tune)
    rows = layer_table(network)
    quicken_dropout(network)
    narrow_last_layer(network)
    examples = examples.to(device)
    batches = training_batches(recipe, examples)
    freezing.start_epoch(movements, recipe.train.epochs - 1)  # everything that ever moves
    groups = freezing.parameter_groups(movements, ingredients.lr)
    optimizer = training_optimizer(recipe, network, groups, ingredients.lr)
    count = recipe.hardware.threads or suitable_threads(rows, recipe.train.batch_size)
    with threads(count), small_numbers_as_zero():
        tracer, times = _measure(ingredients, network, batches, optimizer, device)
    parameters = list(network.parameters())
    trained = [value for value in parameters if value.requires_grad]
    state = [value for entry in optimizer.state.values() for value in entry.values() if torch.is_tensor(value)]
    steps = recipe.train.epochs * batches.steps_per_epoch
    times.sort()
    weights, gradients, kept = map(_bytes, (parameters, trained, state))
    return StagePlan(
        stage=name,
        parameters=sum(value.numel() for value in parameters),
        trained=sum(value.numel() for value in trained),
        steps=steps,
        examples=len(examples),
        flops=float(recipe.train.epochs * len(examples) * _flops(rows, network)),
        weights=weights,
        gradients=gradients,
        optimizer=kept,
        peak=tracer.peak,
        peak_at=f"{tracer.peak_phase}, {tracer.peak_operation}",
        step_seconds=(times[0], times[len(times) // 2], times[-1]),
        seconds=(steps * times[0], steps * times[-1]),
        disk=3 * weights + 2 * kept,
    )


def _measure(
    ingredients: Ingredients, network: AnyNetwork, batches: Batches, optimizer: Any, device: torch.device
) -> tuple[Tracer, list[float]]:
    """The tracer after its steps, and the seconds of the steps that were timed."""
    objective = ingredients.objective.bind(ingredients.recipe.seed, device)
    tracer = Tracer(list(network.parameters()) + list(network.buffers()))
    times: list[float] = []
    set_learning_rate(optimizer, 1.0)

    steps = ((epoch, chosen) for epoch in itertools.count() for chosen in batches.steps(epoch))

    def step(say: Any) -> None:
        say("reading")
        epoch, chosen = next(steps)
        weight = sum(objective.weight(batch) for batch in chosen)
        for parameter in network.parameters():
            parameter.grad = None
        for batch in chosen:
            say("forward")
            loss = objective.loss_sum(network, batch, epoch) / weight
            say("backward")
            loss.backward()
        say("optimiser")
        optimizer.step()

    def note(phase: str) -> None:
        tracer.phase = phase

    with tracer:
        for _ in range(TRACED):
            step(note)
    began = time.perf_counter()
    for _ in range(TIMED):
        started = time.perf_counter()
        step(lambda phase: None)
        times.append(time.perf_counter() - started)
        if time.perf_counter() - began > SECONDS:
            break
    # The first one still finds its memory.
    return tracer, times[1:] or times


def _flops(rows: list[LayerRow], network: AnyNetwork) -> int:
    """Of one example, forwards and backwards: a product for what is put out, one for the gradient of what came in where a block before
    is trained, and one for that of the weights where they are."""
    moving = {
        block.title for block in network.blocks() if any(value.requires_grad for value in block.parameters().values())
    }
    total, below = 0, False
    for row in rows:
        total += row.flops * (1 + below + (row.block in moving))
        below = below or row.block in moving
    return total


def _bytes(tensors: list[Any]) -> int:
    return sum(value.numel() * value.element_size() for value in tensors)


def _table(found: StagePlan, free: int) -> Table:
    table = Table(title=found.stage, title_justify="left", box=None, pad_edge=False, show_header=False)
    low, middle, high = found.step_seconds
    rest = found.peak - found.weights
    lines = [
        ("parameters", f"{found.parameters:,}, {found.trained:,} of them trained"),
        ("steps", f"{found.steps:,}; {found.examples:,} examples an epoch"),
        ("operations", f"{found.flops:.3g} floating-point operations in all"),
        (
            "memory",
            f"{_size(found.peak)} of tensors at most: weights {_size(found.weights)}, all else {_size(rest)}; "
            f"gradients are {_size(found.gradients)}, the optimiser's {_size(found.optimizer)} ({_size(free)} are free)",
        ),
        ("", f"most at: {found.peak_at}"),
        ("a step", f"{1000 * middle:,.1f} ms ({1000 * low:,.1f} to {1000 * high:,.1f}), measured here"),
        ("training", f"{_duration(found.seconds[0])} to {_duration(found.seconds[1])}, and validation besides"),
        ("disk", f"{_size(found.disk)} for model and checkpoints"),
    ]
    for line in lines:
        table.add_row(*line)
    return table


def _size(number: float) -> str:
    for unit, size in (("GiB", 2**30), ("MiB", 2**20), ("KiB", 2**10)):
        if number >= size:
            return f"{number / size:.1f} {unit}"
    return f"{number:.0f} bytes"


def _duration(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.1f} s"
    return f"{seconds / 60:.1f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def print_plan(recipe: Path, overrides: list[str], *, as_json: bool) -> None:
    """The plan as tables, or as JSON on standard output, with all else on standard error."""
    if not as_json:
        plan(recipe, overrides)
        return
    found = plan(recipe, overrides, screen=silent())
    sys.stdout.write(json.dumps([asdict(entry) for entry in found], indent=2) + "\n")
