"""`tunewright lr-find`: try rising learning rates for a few hundred steps and suggest one.

The learning-rate range test of Smith (2017, "Cyclical Learning Rates", section 3.3): the rate grows exponentially from
step to step; the suggestion is where the smoothed loss falls fastest, as in fastai.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

import torch

from tunewright.console import Console
from tunewright.data.batches.sampler import Batches
from tunewright.errors import RecipeError
from tunewright.models.layer_table import layer_table
from tunewright.pipeline.build.parts import StageParts, build_parts, is_stochastic
from tunewright.pipeline.build.prepare_data import prepare_data
from tunewright.pipeline.device import choose_device, suitable_threads, threads
from tunewright.pipeline.read_recipe import given_origin, read_recipe
from tunewright.pipeline.stage import recipe_backbone
from tunewright.random import mix
from tunewright.recipe.schema import Recipe
from tunewright.recipe.stages import stage_recipes
from tunewright.training import freezing
from tunewright.training.loop import set_learning_rate
from tunewright.training.optimizers.registry import build_optimizer

STEPS = 200
LOWEST, HIGHEST = 1e-6, 10.0
SMOOTHING = 0.9
# The test ends when the smoothed loss is this many times the best: beyond, it only diverges.
GIVE_UP = 4.0


@dataclass(frozen=True, kw_only=True)
class Suggestion:
    """The learning rate at the steepest descent, and the trace behind it."""

    lr: float
    trace: list[tuple[float, float]]
    """(learning rate, smoothed loss) after each step."""


def find_learning_rate(recipe: Path, overrides: list[str], *, screen: Console | None = None) -> Suggestion:
    """Run the range test on the recipe's first stage; nothing is saved, no weights are kept."""
    screen = screen or Console()
    loaded, _, _, base, _ = read_recipe(recipe, overrides, None)
    stage = stage_recipes(loaded)[0].recipe
    if stage.privacy is not None:
        raise RecipeError(
            "the test itself learns from the training rows without privacy, and its suggestion would tell of them",
            place="privacy",
            found=f"ε = {stage.privacy.epsilon:g}",
            fix="try learning rates on public data of the same kind",
        )
    ingredients = build_parts(
        stage, prepare_data(stage, base, screen), given_origin(stage, base), recipe_backbone(stage, base), screen
    )
    with threads(stage.hardware.threads or suitable_threads(layer_table(ingredients.network), stage.train.batch_size)):
        suggestion = _range_test(stage, ingredients)
    for rate, loss in suggestion.trace[:: max(1, len(suggestion.trace) // 20)]:
        screen.info(f"lr {rate:9.2e}  loss {loss:8.4f}")
    screen.info(f"suggested: train.lr={suggestion.lr:.1e}, where the loss falls fastest")
    return suggestion


def _range_test(stage: Recipe, ingredients: StageParts) -> Suggestion:
    network = ingredients.network.to(device := choose_device(stage))
    movements = freezing.resolve_movement(network, ingredients.tune)
    freezing.start_epoch(movements, 0)
    groups = freezing.parameter_groups(movements, 1.0)
    optimizer = build_optimizer(stage.train.optimizer, groups, 1.0, stage.train.regularization.weight_decay)
    examples = ingredients.examples("train")
    assert examples is not None
    batches = Batches(examples=examples, batch_size=stage.train.batch_size, seed=stage.seed)
    objective = ingredients.objective.bind(stage.seed, device)

    trace: list[tuple[float, float]] = []
    average = 0.0
    for step in range(STEPS):
        epoch, start = divmod(step, batches.steps_per_epoch)
        (batch,) = next(iter(batches.steps(epoch, start=start)))
        if is_stochastic(network):
            torch.manual_seed(mix(stage.seed, "step", step))
        rate = set_learning_rate(optimizer, LOWEST * (HIGHEST / LOWEST) ** (step / (STEPS - 1)))
        optimizer.zero_grad(set_to_none=True)
        loss = objective.loss_sum(network, batch, epoch) / objective.weight(batch)
        average = SMOOTHING * average + (1 - SMOOTHING) * loss.item()
        smoothed = average / (1 - SMOOTHING ** (step + 1))
        if not math.isfinite(smoothed) or (trace and smoothed > GIVE_UP * min(value for _, value in trace)):
            break
        trace.append((rate, smoothed))
        loss.backward()
        optimizer.step()
    return Suggestion(lr=steepest(trace), trace=trace)


def steepest(trace: list[tuple[float, float]]) -> float:
    """The learning rate at which the loss falls most for each unit of log learning rate.

    The first tenth is passed over: there the smoothed loss has seen too few steps to mean anything.
    """
    start = max(1, len(trace) // 10)
    slopes = [
        ((trace[i + 1][1] - trace[i - 1][1]) / math.log(trace[i + 1][0] / trace[i - 1][0]), trace[i][0])
        for i in range(start, len(trace) - 1)
    ]
    return min(slopes)[1] if slopes else trace[0][0]
