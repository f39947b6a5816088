"""`tunewright plan`: what each stage of a recipe will need, before anything is spent.

Memory comes from a step that is followed operation by operation on a network without numbers; time on this machine from real
steps of a network with random weights, where it is small enough, or else from its operations one by one, or from their sizes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import nn

from tunewright.console import Console, silent
from tunewright.data.batches.batch import Examples
from tunewright.data.batches.feature_cache import Form, kept_bytes
from tunewright.data.prepared import Prepared
from tunewright.errors import RecipeError
from tunewright.hardware.benchmark import calibrate, this_machine, was_busy
from tunewright.hardware.machines import KNOWN, Hardware, card_here, find_hardware, scaled
from tunewright.hardware.resource_model import (
    Span,
    StagePlan,
    closed_form,
    costs,
    process_grown,
    process_memory,
    process_on_card,
    span,
)
from tunewright.models.backbone import Backbone
from tunewright.models.core.meta_weights import DATA_REQUIRED, Weights
from tunewright.models.hub.quantization import size
from tunewright.pipeline.build.assume_trained import as_if_trained
from tunewright.pipeline.build.parts import StageParts, build_parts
from tunewright.pipeline.build.prepare_data import prepare_data
from tunewright.pipeline.device import small_numbers_as_zero, threads
from tunewright.pipeline.read_recipe import given_origin, read_recipe
from tunewright.pipeline.session.memory import (
    activation_bytes,
    forget_peak,
    free_memory,
    peak_memory,
    resident_memory,
    tensor_bytes,
    weight_bytes,
)
from tunewright.pipeline.session.precision import WORTH, known_precision
from tunewright.pipeline.session.session import open_session
from tunewright.pipeline.stage import StartingModel, recipe_backbone
from tunewright.pipeline.strategies.auto_strategy import require_layers
from tunewright.planning.dry_run import DryRun, Timed, run_dry, timed_steps
from tunewright.planning.history import learned_factor
from tunewright.planning.multi_device import DIVIDED, Division, division
from tunewright.planning.step_time import estimated, other_times, step_time
from tunewright.recipe.changes import with_changes
from tunewright.recipe.schema import Recipe
from tunewright.recipe.stages import StageRecipe, stage_recipes
from tunewright.training.distributed.tensor_parallel import narrow_layers

# Real steps are timed where the tensors take less than this share of the free memory, and a step should take less than so many
# seconds; so many of them, and so many seconds.
SHARE, STEP = 0.5, 5.0
TIMED, SECONDS = 1000, 4.0


@dataclass(frozen=True, kw_only=True)
class PlanInput:
    """What a stage is planned from; with another recipe it can be planned again."""

    stage: StageRecipe
    prepared: Prepared
    start: StageParts | StartingModel | None
    """The stage before, of a network without numbers, or the saved model that it begins with."""
    backbone: Backbone | None

    def ingredients(self, recipe: Recipe, weights: Weights) -> StageParts:
        """As the run would gather them, with other weights."""
        origin = None if self.start is None else as_if_trained(self.start, weights)
        return build_parts(recipe, self.prepared, origin, self.backbone, silent(), weights=weights)


def plan(
    recipe: Path,
    overrides: list[str],
    *,
    on: str | None = None,
    probe: bool = True,
    console: Console | None = None,
    show: Callable[[PlanInput, StagePlan, Hardware], None] | None = None,
) -> list[StagePlan]:
    """Plan each stage; nothing is trained and nothing kept.

    Args:
        on: the machine, as `find_hardware` knows it; None: this one.
        probe: time real steps here, where they are small.
        show: is told each stage's plan when it is made, and for which machine.
    """
    console = console or Console()
    loaded, _, _, base, _ = read_recipe(recipe, overrides, None)
    machine = planned_machine(on, console, cards=loaded.hardware.devices * loaded.hardware.nodes)
    found: list[StagePlan] = []
    for given in given_stages(stage_recipes(loaded), base, console):
        made = plan_stage(given, machine, probe=probe and on is None, console=console)
        if made is None:
            console.info(f"{given.stage.name}: few examples, for which the head is solved for; that is not planned")
            continue
        found.append(made)
        if show is not None:
            show(given, made, machine)
    return found


def given_stages(
    stages: list[StageRecipe], base: Path, console: Console, prepared: list[Prepared] | None = None
) -> Iterator[PlanInput]:
    """What each stage starts from; of a stage that follows another a network without numbers."""
    start: StageParts | StartingModel | None = given_origin(stages[0].recipe, base)
    for number, stage in enumerate(stages):
        backbone = recipe_backbone(stage.recipe, base)
        data = prepared[number] if prepared else prepare_data(stage.recipe, base, console)
        given = PlanInput(stage=stage, prepared=data, start=start, backbone=backbone)
        yield given
        if number + 1 < len(stages):
            start = given.ingredients(stage.recipe, "meta")


def planned_machine(on: str | None, console: Console, cards: int = 1) -> Hardware:
    """The machine of that name, or this one, with what past runs have taught of it.

    Args:
        cards: how many a recipe trains on, where the machine has some and its name does not say how many.

    Raises:
        RecipeError: there is none of that name, or a card here that is not known.
    """
    if on is not None:
        machine = find_hardware(on, Path("."))
        machine = replace(machine, devices=cards) if machine.devices == 1 else machine
    elif torch.cuda.is_available():
        card = card_here()
        if card is None:
            raise RecipeError(
                "what this machine's card can do is not known",
                place="--on",
                found=torch.cuda.get_device_name(0),
                expected=", ".join(KNOWN),
                fix="describe it in a file and name that by --on: docs/planning.md shows one",
            )
        machine = replace(card, devices=cards)
    elif (known := this_machine()) is not None:
        machine = known
        if was_busy(machine):
            console.warning(f"this machine was {machine.source}: tunewright calibrate measures it again")
    else:
        console.info("measuring this machine, once")
        machine = calibrate(silent().info)
    return scaled(machine, learned_factor(machine.name))


def plan_stage(given: PlanInput, machine: Hardware, *, probe: bool, console: Console) -> StagePlan | None:
    """The plan of one stage; None where something else is learned than what its recipe's objective says.

    Raises:
        RecipeError: the network looks at its own numbers, and is too large to be given some.
    """
    recipe = _shared_out(given.stage.recipe, machine)
    forget_peak()
    parts = given.ingredients(recipe, "meta")
    if parts.tune.method not in (None, "gradient"):
        return None
    narrowed: set[str] = set()
    if machine.devices > 1 and recipe.hardware.tensor > 1:
        require_layers(parts, machine.devices)
        narrowed = narrow_layers(parts.network, recipe.hardware.tensor)
    here = machine.measured
    free = free_memory(parts.network) if here else int(machine.memory)
    large = weight_bytes(parts.network) > SHARE * free
    if _undecided(parts) and (large or not here) and _half_precision_gain(machine) > WORTH:
        parts = replace(parts, recipe=with_changes(recipe, {"hardware.precision": "bfloat16"}))
    try:
        session = open_session(parts, None, console if here else silent(), free=None if here else free)
        before, encoding = resident_memory(), peak_memory() or 0
        dry_run = run_dry(parts, silent(), session)
    except DATA_REQUIRED as error:
        if large:
            raise _unplannable(given.stage.name, error) from None
        console.info(f"{given.stage.name}: the network looks at its own numbers, so real steps are followed")
        parts = replace(given.ingredients(recipe, "random"), encoded=parts.encoded)
        before, encoding = resident_memory(), peak_memory() or 0
        session = open_session(parts, None, silent(), free=None if here else free)
        dry_run = run_dry(parts, silent(), session)
    small = dry_run.most.most < SHARE * free and estimated(dry_run.usual, machine) < STEP
    real: Timed | None = None
    if here and probe and small:
        passes = [part[0] for part in (dry_run.frozen, dry_run.validation) if part is not None]
        others = all(estimated(part, machine) < STEP for part in passes)
        real, precision = _timed(given, recipe, parts.encoded, others=others)
        if precision != dry_run.session.precision:
            parts = given.ingredients(with_changes(recipe, {"hardware.precision": precision}), "meta")
            dry_run = run_dry(parts, silent())
    found = Measured(
        parts=parts,
        dry_run=dry_run,
        real=real,
        machine=machine,
        before=before,
        encoding=encoding,
        free=free,
        narrowed=narrowed,
    )
    return _put_together(given.stage.name, found)


def _unplannable(stage: str, error: Exception) -> RecipeError:
    return RecipeError(
        f"{stage}: the network looks at its own numbers, and is too large to be given some",
        found=str(error).strip().splitlines()[0],
        expected="a network whose shapes follow from those of its inputs",
        fix="plan a smaller one of its kind",
    )


@dataclass(frozen=True, kw_only=True)
class Measured:
    """What was found out of a stage on the way to its plan."""

    parts: StageParts
    dry_run: DryRun
    real: Timed | None
    """Steps that were taken here; None: none were."""
    machine: Hardware
    before: int
    """Bytes that the process holds before the first step."""
    encoding: int
    """Bytes that it held at most while it read the data."""
    free: int
    narrowed: set[str]
    """The weights of which a device has one of `hardware.tensor` pieces."""

    @property
    def pieces(self) -> int:
        """How many devices compute a layer together."""
        return self.parts.recipe.hardware.tensor if self.narrowed else 1

    def whole(self, named: Iterable[tuple[str, nn.Parameter]]) -> int:
        """The parameters of the whole network, of which a device may hold pieces."""
        return sum(size(value) * (self.pieces if name in self.narrowed else 1) for name, value in named)


def _put_together(stage: str, found: Measured) -> StagePlan:
    """The whole plan."""
    parts, dry_run, machine = found.parts, found.dry_run, found.machine
    network, session, epochs = parts.network, dry_run.session, parts.recipe.train.epochs
    parameters = list(network.parameters())
    trained = [value for value in parameters if value.requires_grad]
    weights, gradients, kept = map(tensor_bytes, (parameters, trained, session.remembered))
    larger = found.whole(network.named_parameters()) / max(1, sum(map(size, parameters)))
    with threads(session.threads), small_numbers_as_zero():
        step, basis, measured = step_time(dry_run, found.real, machine)
        once = other_times(dry_run, machine)
    # A device gets its part of each batch, so there are as many steps as on one.
    rows = machine.devices // found.pieces
    steps = -(-dry_run.steps // rows)
    shared = division(parts, dry_run, machine, rows, found.pieces)
    peak, peak_parts = _peak(dry_run, shared)
    talk = Span(low=0.0, middle=shared.seconds, high=2 * shared.seconds)
    seconds = step.plus(talk).times(steps).plus(span(once[0] + epochs * once[1], basis))
    flops = sum(call.flops * number for call, number in dry_run.usual.all_calls().items()) * dry_run.scale
    examples = len(session.train)
    held = (shared.gathered + int(shared.share * weights), *(int(shared.share * size) for size in (gradients, kept)))
    return StagePlan(
        stage=stage,
        machine=machine.name,
        parameters=found.whole(network.named_parameters()),
        trained=found.whole((name, value) for name, value in network.named_parameters() if value.requires_grad),
        blocks={block.title: found.whole(block.parameters().items()) for block in network.blocks()},
        steps=steps,
        examples=examples,
        flops_per_step=float(flops),
        flops=float(flops * steps * machine.devices),
        precision=session.precision,
        recomputes=session.recomputes,
        peak=peak,
        peak_parts=peak_parts,
        peak_at=dry_run.most.peak_at,
        closed_form=_closed_form(parts, dry_run, *held),
        process=_process(found, peak),
        memory=found.free + found.before if machine.measured else int(machine.memory),
        step=step,
        seconds=seconds,
        per_second=examples * epochs / max(1e-9, step.middle * steps),
        basis=basis,
        measured=measured,
        disk=_disk(parts, dry_run, *(round(larger * size) for size in (weights, gradients, kept))),
        **costs(seconds, machine),
    )


def _peak(dry_run: DryRun, shared: Division) -> tuple[int, dict[str, int]]:
    """The bytes of a device at their peak, in all and by what they are for."""
    most = dry_run.most
    parts = {part: int(held * shared.share) if part in DIVIDED else held for part, held in most.peak.items() if held}
    if shared.gathered:
        parts["gathered"] = shared.gathered
    return most.most - (most.peak.total() - sum(parts.values())), parts


def _process(found: Measured, peak: int) -> Span:
    """The bytes of the whole process."""
    dry_run, real = found.dry_run, found.real
    if not found.machine.measured:
        return process_on_card(peak)
    lengths = len(set(dry_run.sizes))
    if real is None or real.process is None:
        return process_memory(peak, found.before, found.encoding, lengths)
    beside = 0 if real.others else max(0, dry_run.most.most - dry_run.largest.most)
    vary = dry_run.session.train.lengths is not None
    return process_grown(max(found.encoding, real.process + beside), lengths - real.lengths, vary=vary)


def _shared_out(recipe: Recipe, machine: Hardware) -> Recipe:
    """What one of several devices gets of each batch."""
    if machine.devices == 1:
        return recipe
    rows = max(1, machine.devices // recipe.hardware.tensor)
    return with_changes(recipe, {"train.batch_size": -(-recipe.train.batch_size // rows)})


def _timed(given: PlanInput, recipe: Recipe, encoded: dict[str, Examples | None], *, others: bool) -> tuple[Timed, str]:
    """Real steps of a network with random weights, and the precision that is faster here.

    Args:
        encoded: the examples, which need not be read a second time.
        others: as for `timed_steps`.
    """
    real = replace(given.ingredients(recipe, "random"), encoded=encoded)
    session = open_session(real, None, silent())
    return timed_steps(real, session, SECONDS, TIMED, others=others), session.precision


def _undecided(parts: StageParts) -> bool:
    """Whether a run would measure first which precision is faster."""
    network, recipe = parts.network, parts.recipe
    if not network.supports_bfloat16 or recipe.hardware.precision != "auto":
        return False
    return known_precision(network, recipe.train.batch_size) is None


def _half_precision_gain(machine: Hardware) -> float:
    """How many times as fast long products are in bfloat16."""
    if "bfloat16" not in machine.products:
        return 1.0
    return machine.products["bfloat16"][-1][1] / machine.products["float32"][-1][1]


def _closed_form(parts: StageParts, dry_run: DryRun, weights: int, gradients: int, state: int) -> int:
    session, train = dry_run.session, dry_run.session.recipe.train
    examples = parts.examples("train")
    assert examples is not None
    longest = int(examples.lengths.max()) if examples.lengths is not None else 1
    count = max(1, round(max(dry_run.sizes) / longest / train.accumulate))
    if session.frozen is not None or session.recomputes:
        return closed_form(weights, gradients, state, 0, 0)
    each = session.activations if session.activations is not None else activation_bytes(session.network, examples)
    return closed_form(weights, gradients, state, each, count)


def _disk(parts: StageParts, dry_run: DryRun, weights: int, trained: int, state: int) -> dict[str, int]:
    folder = parts.prepared.folder
    found = {
        "prepared data": sum(file.stat().st_size for file in folder.rglob("*") if file.is_file()),
        "checkpoints": 2 * (trained + state) + trained,
        "model": weights,
    }
    frozen = dry_run.session.frozen
    if frozen is not None:
        forms = [Form(shape=slot.kept_shape, dtype=slot.dtype, by_token=slot.by_token) for slot in frozen.prefix.slots]
        for examples in (dry_run.session.train, dry_run.session.valid):
            if examples is not None:
                tokens = int(examples.lengths.sum()) if examples.lengths is not None else 0
                found["frozen part"] = found.get("frozen part", 0) + kept_bytes(forms, len(examples), tokens)
    return found
