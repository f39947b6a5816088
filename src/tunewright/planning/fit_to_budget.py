"""What makes a stage fit: first what keeps the result, then what the user allows although it changes it.

For each way to save memory the largest batch that fits is looked for; of all that fit the one that takes least time is taken. On cards, where
none of what keeps the result is enough, more of them share the model.
"""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

from tunewright.console import silent
from tunewright.errors import RecipeError
from tunewright.hardware.machines import Hardware
from tunewright.hardware.resource_model import StagePlan
from tunewright.pipeline.build.parts import StageParts
from tunewright.pipeline.session.session import no_steps_in_backward
from tunewright.pipeline.strategies.auto_strategy import obstacles, strategy_for
from tunewright.planning.plan import PlanInput, plan_stage
from tunewright.recipe.changes import Changes, with_changes
from tunewright.recipe.named import choose, parse_named
from tunewright.recipe.schema import Recipe

UNITS = {
    "gib": ("memory", 2**30),
    "mib": ("memory", 2**20),
    "gb": ("memory", 1e9),
    "h": ("seconds", 3600.0),
    "min": ("seconds", 60.0),
    "d": ("seconds", 86400.0),
    "usd": ("cost", 1.0),
}


@dataclass(frozen=True, kw_only=True)
class Limits:
    """What a stage may need at most; infinite: as much as it likes."""

    memory: float = math.inf
    seconds: float = math.inf
    cost: float = math.inf

    def allow(self, plan: StagePlan) -> bool:
        """Whether a plan keeps to them, and fits at all."""
        needs = (plan.process.middle, plan.seconds.middle, plan.cost.middle)
        return plan.fits and all(need <= most for need, most in zip(needs, (self.memory, self.seconds, self.cost)))


@dataclass(frozen=True, kw_only=True)
class Option:
    """One way to carry out a stage."""

    changes: Changes
    plan: StagePlan

    @property
    def keeps(self) -> bool:
        """Whether the result stays the same, but for rounding."""
        return not self.changes.keys() - KEEP


def parse_budgets(budgets: list[str]) -> Limits:
    """Such as 16GiB, 24h and 50usd.

    Raises:
        RecipeError: one cannot be read.
    """
    found: dict[str, float] = {}
    for text in budgets:
        parts = re.fullmatch(r"\s*([0-9]*\.?[0-9]+)\s*([A-Za-z]+)\s*", text)
        if parts is None or parts[2].lower() not in UNITS:
            raise RecipeError(
                "this budget cannot be read",
                place="--budget",
                found=text,
                expected=f"a number and one of {', '.join(UNITS)}",
                fix="write it such as 16GiB, 24h or 50usd",
            )
        kind, size = UNITS[parts[2].lower()]
        found[kind] = float(parts[1]) * size
    return Limits(**found)


def find_strategy(
    given: PlanInput, plan: StagePlan, limits: Limits, allowed: list[str], machine: Hardware
) -> tuple[Option | None, list[Option]]:
    """The fastest of the ways that keep to the limits, and all that were looked at; None: there is none.

    Args:
        allowed: what may change the result, by the names of `RISKY`.

    Raises:
        RecipeError: a name is not known.
    """
    looked_at: list[Option] = []
    risky = [choose(RISKY, name, "--allow") for name in allowed]
    recipe = given.stage.recipe
    parts = given.ingredients(recipe, "meta")
    keeping = _keeping(recipe, parts, machine)
    more = [found for change in risky if (found := change(recipe, parts))]
    for changes in _ways(keeping, more):
        option = _largest_batch(given, plan, changes, limits, machine, looked_at)
        if option is not None and option.keeps:
            break
    if machine.link and not any(option.keeps and limits.allow(option.plan) for option in looked_at):
        shared = [changes for changes in keeping if "hardware.optimizer_in_backward" not in changes]
        _more_devices(given, plan, shared, parts, limits, machine, looked_at)
    return _best([entry for entry in looked_at if limits.allow(entry.plan)]), looked_at


def _best(fitting: list[Option]) -> Option | None:
    """The fastest of those that keep the result, or else of all."""
    keeping = [option for option in fitting if option.keeps]
    return min(keeping or fitting, key=lambda option: option.plan.seconds.middle, default=None)


# What changes no result beyond rounding.
KEEP = {
    "train.batch_size",
    "train.accumulate",
    "hardware.gradient_checkpointing",
    "hardware.optimizer_in_backward",
    "hardware.devices",
    "hardware.tensor",
    "hardware.strategy",
    "hardware.offload",
}
# So many times as many cards are tried at most, and so many of them dividing the layers of a gpt.
TIMES = (2, 4, 8, 16, 32, 64)
TENSOR = (1, 2, 4, 8)


def _lora(recipe: Recipe, parts: StageParts) -> Changes:
    return {} if recipe.tune.adapter is not None else {"tune.adapter": {"lora": {"r": 16}}}


def _four_bits(recipe: Recipe, parts: StageParts) -> Changes:
    if recipe.tune.quantize is not None:
        return {}
    return _lora(recipe, parts) | {"tune.quantize": "nf4"}


def _eight_bits(recipe: Recipe, parts: StageParts) -> Changes:
    name, given = parse_named(recipe.train.optimizer, "train.optimizer")
    if name not in ("adam", "adamw"):
        return {}
    return {"train.optimizer": {"adamw_8bit": given} if given else "adamw_8bit"}


def _freeze(recipe: Recipe, parts: StageParts) -> Changes:
    return {} if recipe.tune.freeze != "none" else {"tune.freeze": 0.5}


def _shorter(recipe: Recipe, parts: StageParts) -> Changes:
    encoder = parts.preprocessor.inputs
    if not encoder.cuts_texts:
        return {}
    return {"model.max_length": max(4, encoder.input_shape[0] // 2)}


Risky = Callable[[Recipe, StageParts], Changes]
RISKY: dict[str, Risky] = {
    "lora": _lora,
    "4bit": _four_bits,
    "8bit": _eight_bits,
    "freeze": _freeze,
    "shorter": _shorter,
}


def _ways(keeping: list[Changes], more: list[Changes]) -> Iterator[Changes]:
    """Sets of changes apart from the batch: as it is, with activations computed again, then with what is allowed besides."""
    yield from keeping
    for count in range(1, len(more) + 1):
        for chosen in itertools.combinations(more, count):
            joined = {name: value for part in chosen for name, value in part.items()}
            yield from ({**joined, **kept} for kept in keeping)


def _keeping(recipe: Recipe, parts: StageParts, machine: Hardware) -> list[Changes]:
    """Sets of changes that keep the result, apart from the batch."""
    found: list[Changes] = [{}]
    if parts.network.supports_gradient_checkpointing and recipe.hardware.gradient_checkpointing is not True:
        found.append({"hardware.gradient_checkpointing": True})
    alone = machine.devices == 1 and not recipe.hardware.optimizer_in_backward
    if alone and no_steps_in_backward(recipe) is None:
        found += [{**changes, "hardware.optimizer_in_backward": True} for changes in found]
    elsewhere = machine.devices > 1 and machine.host and not recipe.hardware.offload
    if elsewhere and recipe.hardware.strategy != "ddp" and not obstacles(parts, sharded=True):
        found += [{**changes, "hardware.offload": True} for changes in found]  # the slowest, so last
    return found


def _more_devices(
    given: PlanInput,
    plan: StagePlan,
    keeping: list[Changes],
    parts: StageParts,
    limits: Limits,
    machine: Hardware,
    looked_at: list[Option],
) -> None:
    """More and more devices, each with its part of every batch, up to the fewest that are enough; where a part of the batch is too much for
    one still, several of them divide a gpt's layers."""
    recipe = given.stage.recipe
    strategy = strategy_for(recipe, parts.tune, parts.network, machine.memory)
    if obstacles(parts, sharded=strategy == "fsdp"):
        return
    ways = list(keeping)
    if strategy == "ddp" and recipe.hardware.strategy == "auto" and not obstacles(parts, sharded=True):
        ways += [{**changes, "hardware.strategy": "fsdp"} for changes in keeping]
    divisible = bool(parts.network.tensor_parallel_plan())
    for times in TIMES:
        count = machine.devices * times
        if _held(plan) / times > min(limits.memory, machine.memory):
            continue
        for tensor in TENSOR if divisible else TENSOR[:1]:
            if count % tensor or count // tensor > recipe.train.batch_size:
                continue
            for changes in ways:
                chosen: Changes = {**changes, "hardware.devices": count}
                if tensor > 1:
                    chosen["hardware.tensor"] = tensor
                if (made := _tried(given, chosen, replace(machine, devices=count))) is not None:
                    looked_at.append(Option(changes=chosen, plan=made))
                    if limits.allow(made):
                        return


def _tried(given: PlanInput, changes: Changes, machine: Hardware) -> StagePlan | None:
    """The changed stage's plan; None where its heads cannot be divided so."""
    try:
        return plan_changed(given, changes, machine)
    except RecipeError as error:
        if error.place != "hardware.tensor":
            raise
        return None


def _largest_batch(
    given: PlanInput, plan: StagePlan, changes: Changes, limits: Limits, machine: Hardware, looked_at: list[Option]
) -> Option | None:
    """The batch is halved, and twice as many are added up for a step, until it fits."""
    train = given.stage.recipe.train
    size, together = train.batch_size, train.accumulate
    while True:
        batch: Changes = {} if size == train.batch_size else {"train.batch_size": size, "train.accumulate": together}
        chosen = {**changes, **batch}
        made = plan if not chosen else plan_changed(given, chosen, machine)
        if made is not None:
            looked_at.append(Option(changes=chosen, plan=made))
            if limits.allow(made):
                return looked_at[-1]
        if size == 1 or train.batch_seconds is not None or (made is not None and _hopeless(made, limits)):
            return None
        if "hardware.optimizer_in_backward" in changes:
            return None  # gradients of several batches cannot be added up
        size, together = -(-size // 2), together * 2


def _hopeless(plan: StagePlan, limits: Limits) -> bool:
    """Whether what no batch changes is too much already."""
    return _held(plan) > min(limits.memory, plan.memory)


def _held(plan: StagePlan) -> int:
    """Bytes that are there whatever the batch is."""
    return plan.peak_parts.get("weights", 0) + plan.peak_parts.get("optimiser", 0)


def plan_changed(given: PlanInput, changes: Changes, machine: Hardware) -> StagePlan | None:
    """The plan of the stage with another recipe, by sizes alone."""
    recipe = with_changes(given.stage.recipe, changes)
    changed = replace(given, stage=replace(given.stage, recipe=recipe))
    return plan_stage(changed, machine, probe=False, console=silent())
