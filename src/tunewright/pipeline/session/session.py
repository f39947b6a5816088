"""Everything that is decided before a stage's first step: for the run, and for a plan, which takes a few of its steps."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from tunewright.console import Console
from tunewright.data.batches.batch import Examples
from tunewright.data.batches.sampler import Batches
from tunewright.errors import RecipeError
from tunewright.models.core.meta_weights import has_meta_weights
from tunewright.models.core.network import Network
from tunewright.models.fast_dropout import quicken_dropout
from tunewright.models.hub.first_token_only import narrow_last_layer
from tunewright.models.layer_table import LayerRow, layer_table
from tunewright.models.recommendation.embedding_table import has_sparse_gradients
from tunewright.pipeline.build.parts import StageParts
from tunewright.pipeline.device import choose_device, suitable_threads
from tunewright.pipeline.session.frozen_features import ComputedExamples, FrozenPart, frozen_part
from tunewright.pipeline.session.memory import LARGE, give_back, save_memory, weight_bytes
from tunewright.pipeline.session.precision import set_precision
from tunewright.recipe.named import parse_named
from tunewright.recipe.schema import Recipe
from tunewright.runs.summary.data import DataDescription
from tunewright.training import freezing
from tunewright.training.distributed.process_group import ProcessGroup
from tunewright.training.gradients import GradientEstimator
from tunewright.training.objectives.base import StepObjective
from tunewright.training.optimizers.registry import build_optimizer
from tunewright.training.optimizers.step_in_backward import step_in_backward
from tunewright.training.regularization import penalty
from tunewright.training.step import TrainModule


@dataclass(frozen=True, kw_only=True)
class Session:
    """A stage before its first step."""

    recipe: Recipe
    device: torch.device
    network: Network
    model: nn.Module
    """The module that takes the batches: the network, or the part of it behind the frozen blocks."""
    plans: list[freezing.TrainablePlan]
    frozen: FrozenPart | None
    train: Examples
    valid: Examples | None
    batches: Batches
    objective: StepObjective
    optimizer: Optimizer
    precision: str
    recomputes: bool
    """Gradient checkpointing: activations are recomputed in the backward pass."""
    activations: int | None
    """Bytes that the largest example keeps for the backward pass without recomputation; None: not measured."""
    threads: int
    texts: DataDescription | None
    """A description of the texts that the network reads; None: it reads none."""

    @property
    def remembered(self) -> list[Tensor]:
        """The tensors of the optimiser's state."""
        return [value for entry in self.optimizer.state.values() for value in entry.values() if torch.is_tensor(value)]

    @property
    def parameter_names(self) -> list[str]:
        """The names of the optimiser's parameters, group after group."""
        names = {id(parameter): name for name, parameter in self.network.named_parameters()}
        return [names[id(value)] for group in self.optimizer.param_groups for value in group["params"]]

    def module(self, gradient: GradientEstimator) -> TrainModule:
        """How a step is taken with this estimate of the gradient."""
        return TrainModule(
            model=self.model,
            objective=self.objective,
            optimizer=self.optimizer,
            gradient=gradient,
            penalty=penalty_of(self.optimizer, self.recipe),
            clip_norm=self.recipe.train.clip_norm,
            seed=self.recipe.seed if self.network.is_stochastic else None,
            updates_in_backward=self.recipe.hardware.optimizer_in_backward,
        )


def open_session(
    parts: StageParts,
    folder: Path | None,
    console: Console,
    *,
    free: int | None = None,
    group: ProcessGroup | None = None,
) -> Session:
    """Prepare everything that the first step needs.

    Args:
        folder: the stage's, which keeps decisions for a resumed run; None: nothing is kept.
        free: bytes of memory of another machine; None: what is free here.
        group: the processes that each take a part of every batch; None: this one takes all.

    Raises:
        UserError: recipe, data and network do not fit together.
    """
    recipe = parts.recipe
    network = parts.network
    device = _place_network(network, recipe, group)
    train = parts.examples("train")
    assert train is not None  # prepare refuses data without a training row
    texts = parts.describe(train, console)
    train, valid = train.to(device), parts.examples("valid")
    plans = freezing.resolve_trainable(network, parts.tune)
    quicken_dropout(network)
    narrow_last_layer(network)
    precision = set_precision(network, recipe, train, folder, console)
    recomputes, activations = save_memory(network, recipe, train, console, free)
    train = referred(parts, train, device, console)
    valid = None if valid is None else referred(parts, valid, device, console)
    layers = cache(lambda: layer_table(network))
    model: nn.Module = network
    if (frozen := frozen_part(parts, plans, train, layers)) is not None:
        model = frozen.model
        train = _kept(frozen, train, "training", folder, console)
        valid = None if valid is None else _kept(frozen, valid.to(device), "validation", folder, console)
    groups = freezing.parameter_groups(plans, parts.lr)
    give_back()  # reading the data can take more than training does
    return Session(
        recipe=recipe,
        device=device,
        network=network,
        model=model,
        plans=plans,
        frozen=frozen,
        train=train,
        valid=valid,
        batches=training_batches(recipe, train, group),
        objective=parts.objective.bind(recipe.seed, device),
        optimizer=training_optimizer(recipe, network, groups, parts.lr),
        precision=precision,
        recomputes=recomputes,
        activations=activations,
        threads=recipe.hardware.threads or _threads(network, layers, frozen, recipe.train.batch_size),
        texts=texts,
    )


def _place_network(network: Network, recipe: Recipe, group: ProcessGroup | None) -> torch.device:
    """Move the network to its device; a sharded one stays, as the device gets its shards later."""
    if group is not None and recipe.hardware.strategy == "fsdp":
        return choose_device(recipe)
    if has_meta_weights(network):
        return torch.device("cpu")  # where a network without memory counts as being, whatever the machine has
    network.to(device := choose_device(recipe))
    return device


def _threads(network: Network, layers: Callable[[], list[LayerRow]], frozen: FrozenPart | None, batch_size: int) -> int:
    """Return the CPU threads for what is computed. A large network without memory gets all, which saves a pass through it."""
    if has_meta_weights(network) and weight_bytes(network) > LARGE:
        return torch.get_num_threads()
    computed = [row for row in layers() if frozen is None or row.block not in frozen.titles]
    return suitable_threads(computed, batch_size)


def _kept(frozen: FrozenPart, examples: Examples, name: str, folder: Path | None, console: Console) -> Examples:
    """Return the examples with frozen features, kept where there is a folder."""
    if folder is None:
        return ComputedExamples(examples, frozen.network, frozen.prefix)
    return frozen.examples(examples, name, console)


def referred(parts: StageParts, examples: Examples, device: torch.device, console: Console) -> Examples:
    """Return the examples with the reference outputs of the untrained network, where the objective asks for them.

    A checkpoint of a resumed training is loaded afterwards.
    """
    refer = parts.objective.refer
    if refer is None:
        return examples
    console.info(
        f"{parts.objective.name}: the reference is the network as it is now, computed once for {len(examples):,} pairs"
    )
    return examples.with_reference(refer(parts.network, examples.to(device)))


def penalty_of(optimizer: Optimizer, recipe: Recipe) -> Callable[[], Tensor] | None:
    """Return the regularisation term of the loss, over every parameter that is trained; None: it is zero."""
    terms = recipe.train.regularization
    if terms.l1 == 0 and terms.l2 == 0:
        return None
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    return lambda: penalty([value for value in parameters if value.requires_grad], l1=terms.l1, l2=terms.l2)


def training_batches(recipe: Recipe, examples: Examples, group: ProcessGroup | None) -> Batches:
    """Return the batches of a stage's epochs; in a group, this process's part of each."""
    return Batches(
        part=group.rank if group else 0,
        parts=group.size if group else 1,
        examples=examples,
        batch_size=recipe.train.batch_size,
        accumulate=recipe.train.accumulate,
        seed=recipe.seed,
        most=longest_batch(recipe, examples),
    )


def training_optimizer(recipe: Recipe, network: nn.Module, groups: list[dict[str, Any]], lr: float) -> Optimizer:
    """Build the optimiser that the recipe names, after checking that it fits the network's gradients."""
    _require_rows(network, recipe)
    optimizer = build_optimizer(recipe.train.optimizer, groups, lr, recipe.train.regularization.weight_decay)
    if recipe.hardware.optimizer_in_backward:
        if (problem := no_steps_in_backward(recipe)) is not None:
            place, found = problem
            raise RecipeError(
                "steps in the backward pass see one gradient at a time",
                place=place,
                found=found,
                expected="what needs no other gradient, in one process",
                # Where a task has one of its own, leaving it out does not help.
                fix="train.clip_norm: null" if place == "train.clip_norm" else f"leave {place} out",
            )
        step_in_backward(optimizer)
    return optimizer


def no_steps_in_backward(recipe: Recipe) -> tuple[str, Any] | None:
    """Return why a recipe's steps cannot be taken in the backward pass: the key and its value; None: they can."""
    train, hardware = recipe.train, recipe.hardware
    name, _ = parse_named(train.optimizer, "train.optimizer")
    wrong = {
        "train.clip_norm": train.clip_norm,
        "train.accumulate": train.accumulate if train.accumulate > 1 else None,
        "train.regularization.l1": train.regularization.l1 or None,
        "train.regularization.l2": train.regularization.l2 or None,
        "train.optimizer": name if name in ("muon", "rowwise_adagrad") else None,
        "privacy": "differential privacy" if recipe.privacy is not None else None,
        "hardware.devices": hardware.devices * hardware.nodes if hardware.devices * hardware.nodes > 1 else None,
    }
    return next(((place, found) for place, found in wrong.items() if found is not None), None)


def _require_rows(network: nn.Module, recipe: Recipe) -> None:
    """Raise RecipeError when sparse gradients meet what needs dense ones."""
    if not has_sparse_gradients(network):
        return
    train = recipe.train
    name, _ = parse_named(train.optimizer, "train.optimizer")
    wrong = {
        "train.optimizer": name if name != "rowwise_adagrad" else None,
        "train.clip_norm": train.clip_norm,
        "train.regularization": "l1 or l2" if train.regularization.l1 or train.regularization.l2 else None,
    }
    for place, found in wrong.items():
        if found is not None:
            raise RecipeError(
                "a sparse table gives gradients of its rows alone",
                place=place,
                found=found,
                expected="optimizer: rowwise_adagrad, and neither clip_norm nor a penalty",
                fix="train.optimizer: rowwise_adagrad" if place == "train.optimizer" else f"leave {place} out",
            )


def longest_batch(recipe: Recipe, examples: Examples) -> int | None:
    """Return `train.batch_seconds` in hundredths of a second, the unit of recordings' lengths.

    Raises:
        RecipeError: the examples are no recordings.
    """
    seconds = recipe.train.batch_seconds
    if seconds is None:
        return None
    if not examples.timed:
        raise RecipeError(
            "only recordings are gathered by seconds",
            place="train.batch_seconds",
            found=recipe.task,
            expected="task: speech-recognition",
            fix="write train.batch_size",
        )
    return round(100 * seconds)
