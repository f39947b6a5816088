"""The learning rate as a pure function of the step: a factor between 0 and 1 of the peak learning rate.

Steps are counted from 0. The warm-up of W steps comes first; the schedule is laid over the T steps that are left, so
that `step` t of T below is counted from the end of the warm-up, and the factor at t = 0 is 1 for all but `one_cycle`.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Annotated

from pydantic import Field

from tunewright.errors import RecipeError
from tunewright.recipe.named import check_options, choose, parse_named
from tunewright.recipe.schema import Named

Factor = Callable[[int], float]

# As in PyTorch's OneCycleLR: the rise takes 30 % of the steps, from 1/25 of the peak; the end is 1/10,000 of the start.
RISE = 0.3
START = 1 / 25
END = START / 10_000


def constant(steps: int) -> Factor:
    """1 at every step."""
    return lambda step: 1.0


def linear(steps: int) -> Factor:
    """1 − t/T: falls to 0, which it would reach one step after the last."""
    return lambda step: max(0.0, 1 - step / steps)


def cosine(steps: int) -> Factor:
    """½ (1 + cos(π t/T)): Loshchilov and Hutter 2016 (SGDR), eq. 5, with η_min = 0, η_max = 1 and no restart."""
    return lambda step: 0.5 * (1 + math.cos(math.pi * min(1.0, step / steps)))


def one_cycle(steps: int) -> Factor:
    """Up to the peak and far down again: Smith and Topin 2017 ("Super-convergence"), section 3.

    From a to b the factor is b + (a − b) ½ (1 + cos(π p)), p being the share of the way: a cosine in place of the
    paper's straight lines, as in fastai and PyTorch's OneCycleLR, with whose default numbers this agrees: from 1/25 at
    step 0 to 1 at step 0.3 T − 1, then to 1/250,000 at step T − 1. The momentum stays as it is.
    """
    peak, last = RISE * steps - 1, steps - 1

    def factor(step: int) -> float:
        if step <= peak:
            return _cosine_between(START, 1.0, step / peak if peak > 0 else 1.0)
        return _cosine_between(1.0, END, min(1.0, (step - peak) / (last - peak)) if last > peak else 1.0)

    return factor


def step(
    steps: int, *, every: Annotated[float, Field(gt=0)], gamma: Annotated[float, Field(gt=0, le=1)] = 0.1
) -> Factor:
    """γ^⌊t / every⌋. `every` below 1 is a share of the steps after the warm-up, from 1 on a number of steps."""
    length = count_steps(every, steps, "train.schedule.step.every")
    return lambda step: gamma ** (step // max(1, length))


def wsd(steps: int, *, decay: Annotated[float, Field(gt=0)] = 0.2) -> Factor:
    """Warm-up, stable, decay: 1, then over the last `decay` steps a straight line to 0 (Hu et al. 2024, "MiniCPM", section 4;
    Hägele et al. 2024).

    The weights before the decay can be trained on, so a run need not know its length. `decay` below 1 is a share of the
    steps after the warm-up, from 1 on a number of steps.
    """
    length = max(1, count_steps(decay, steps, "train.schedule.wsd.decay"))
    return lambda step: min(1.0, max(0.0, (steps - step) / length))


SCHEDULES: dict[str, Callable[..., Factor]] = {
    "constant": constant,
    "linear": linear,
    "cosine": cosine,
    "one_cycle": one_cycle,
    "step": step,
    "wsd": wsd,
}


def learning_rate_factor(named: Named, warmup: float, total_steps: int) -> Factor:
    """Return what to multiply the peak learning rate by, at each step counted from 0.

    During the warm-up of W steps the factor is (t + 1)/(W + 1) (Goyal et al. 2017, section 2.2, "gradual warmup"): it
    starts above 0, so that the first step is not lost, and the schedule goes on from 1 without a repeated step.

    Args:
        warmup: below 1 a share of all steps, from 1 on a number of steps.
        total_steps: steps of the whole training, warm-up included.

    Raises:
        RecipeError: an unknown schedule or option, or a warm-up that leaves no step for the schedule.
    """
    name, given = parse_named(named, "train.schedule")
    schedule = choose(SCHEDULES, name, "train.schedule")
    options = check_options(schedule, given, f"train.schedule.{name}")
    warmup_steps = _warmup_steps(name, warmup, total_steps)
    after = schedule(total_steps - warmup_steps, **options)
    if warmup_steps == 0:
        return after
    return lambda step: (step + 1) / (warmup_steps + 1) if step < warmup_steps else after(step - warmup_steps)


def count_steps(amount: float, steps: int, where: str) -> int:
    """`amount` as a number of steps: below 1 it is a share of `steps`, from 1 on it is the number itself.

    Raises:
        RecipeError: a number above 1 that is not whole.
    """
    if amount < 1:
        return round(amount * steps)
    if not float(amount).is_integer():
        raise RecipeError(
            "a number of steps must be whole",
            place=where,
            found=amount,
            expected="below 1 a share of the steps, from 1 on a whole number of steps",
            fix="write a whole number, or a share below 1",
        )
    return int(amount)


def _warmup_steps(schedule: str, warmup: float, total_steps: int) -> int:
    if warmup and schedule == "one_cycle":
        raise RecipeError(
            "the schedule one_cycle has a warm-up of its own",
            place="train.warmup",
            found=warmup,
            expected="0",
            fix="leave train.warmup out, or choose another schedule",
        )
    steps = count_steps(warmup, total_steps, "train.warmup")
    # A share rounds up to everything only where there are hardly any steps; one is left to the schedule.
    steps = min(steps, total_steps - 1) if warmup < 1 else steps
    if steps >= total_steps:
        raise RecipeError(
            f"the warm-up leaves nothing of the training's {total_steps:,} steps",
            place="train.warmup",
            found=warmup,
            expected=f"fewer than {total_steps:,} steps, or a share below 1",
            fix="shorten the warm-up, or train for more epochs",
        )
    return steps


def _cosine_between(start: float, end: float, share: float) -> float:
    return end + (start - end) * 0.5 * (1 + math.cos(math.pi * share))
