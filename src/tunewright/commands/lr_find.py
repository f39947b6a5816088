"""Run `tunewright lr-find`: try rising learning rates for a few hundred steps and suggest one.

The learning-rate range test of Smith (2017, "Cyclical Learning Rates", section 3.3): the rate grows exponentially from
step to step; the suggestion is where the smoothed loss falls fastest, as in fastai. The steps are those of the training
itself: accumulation, clipping, penalties, multiples of the learning rate, precision.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from pathlib import Path

from tunewright.console import Console
from tunewright.errors import RecipeError
from tunewright.pipeline.build.parts import build_parts
from tunewright.pipeline.build.prepare_data import prepare_data
from tunewright.pipeline.device import small_numbers_as_zero, threads
from tunewright.pipeline.read_recipe import given_origin, read_recipe
from tunewright.pipeline.session.session import Session, open_session
from tunewright.pipeline.stage import recipe_backbone
from tunewright.recipe.stages import stage_recipes
from tunewright.training import freezing
from tunewright.training.gradients import ExactGradient, Position
from tunewright.training.step import take_step

STEPS = 200
LOWEST, HIGHEST = 1e-6, 10.0
SMOOTHING = 0.9
# The test ends when the smoothed loss is this many times the best: beyond, it only diverges.
GIVE_UP = 4.0


@dataclass(frozen=True, kw_only=True)
class Suggestion:
    """Hold the learning rate at the steepest descent, and the trace of the test."""

    lr: float
    trace: list[tuple[float, float]]
    """(learning rate, smoothed loss) after each step."""


def find_learning_rate(recipe: Path, overrides: list[str], *, console: Console | None = None) -> Suggestion:
    """Run the learning rate range test on the recipe's first stage; nothing is saved."""
    console = console or Console()
    loaded, _, _, base, _ = read_recipe(recipe, overrides, None)
    stage = stage_recipes(loaded)[0].recipe
    if stage.privacy is not None:
        raise RecipeError(
            "the range test trains on the rows without privacy, and its suggestion reveals something about them",
            place="privacy",
            found=f"ε = {stage.privacy.epsilon:g}",
            fix="try learning rates on public data of the same kind",
        )
    parts = build_parts(
        stage, prepare_data(stage, base, console), given_origin(stage, base), recipe_backbone(stage, base), console
    )
    # With a base learning rate of 1, the factor of a step is `train.lr`, whatever the multiples of the groups.
    session = open_session(replace(parts, lr=1.0), None, console)
    with threads(session.threads), small_numbers_as_zero():
        suggestion = _range_test(session)
    for rate, loss in suggestion.trace[:: max(1, len(suggestion.trace) // 20)]:
        console.info(f"lr {rate:9.2e}  loss {loss:8.4f}")
    console.info(f"suggested: train.lr={suggestion.lr:.1e}, where the loss falls fastest")
    return suggestion


def _range_test(session: Session) -> Suggestion:
    """Take the steps of the training's first epoch, over and over, with rising learning rates."""
    freezing.start_epoch(session.plans, 0)
    module, batches = session.module(ExactGradient()), session.batches
    trace: list[tuple[float, float]] = []
    average = 0.0
    for step in range(STEPS):
        epoch, start = divmod(step, batches.steps_per_epoch)
        rate = LOWEST * (HIGHEST / LOWEST) ** (step / (STEPS - 1))
        loss = take_step(module, next(batches.steps(epoch, start=start)), Position(epoch, step), rate)
        average = SMOOTHING * average + (1 - SMOOTHING) * loss.mean
        smoothed = average / (1 - SMOOTHING ** (step + 1))
        if not math.isfinite(smoothed) or (trace and smoothed > GIVE_UP * min(value for _, value in trace)):
            break
        trace.append((rate, smoothed))
    return Suggestion(lr=steepest(trace), trace=trace)


def steepest(trace: list[tuple[float, float]]) -> float:
    """Return the learning rate at which the loss falls most per unit of log learning rate.

    The first tenth is skipped: there the smoothed loss is an average of too few steps.
    """
    start = max(1, len(trace) // 10)
    slopes = [
        ((trace[i + 1][1] - trace[i - 1][1]) / math.log(trace[i + 1][0] / trace[i - 1][0]), trace[i][0])
        for i in range(start, len(trace) - 1)
    ]
    return min(slopes)[1] if slopes else trace[0][0]
