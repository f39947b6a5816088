"""What is trained and what is frozen: freezing, gradual unfreezing, learning rates by block.

Everything is resolved against the model's list of blocks, counted from the input; a number counts those with parameters,
of which the embeddings are the first. A frozen block gets no gradient and runs in evaluation mode, so that its BatchNorm
keeps its statistics and its dropout is off.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from torch import Tensor, nn

from tunewright.errors import ArtifactError, RecipeError, RunFailed
from tunewright.models.core.network import Block, Network
from tunewright.models.hub.adapters import is_moved_by
from tunewright.recipe.patterns import matches
from tunewright.recipe.schema import Tune

# A group's list of the parameters that `muon` updates by its own rule.
INSIDE = "inside"

_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)


@dataclass(frozen=True, kw_only=True)
class TrainablePlan:
    """For each block: from which epoch on it is trained, and the multiple of the learning rate it gets."""

    block: Block
    from_epoch: int | None
    """The first epoch, counted from 0, in which the block is trained; None: never."""
    lr_multiplier: float
    moving: frozenset[str]
    """The names of the parameters that are trained with the block: all of them, or an adapter's."""
    scales: dict[str, float]
    """By name, further multiples of the learning rate of single parameters."""

    @property
    def parameters(self) -> list[nn.Parameter]:
        """The parameters that are trained with the block."""
        return [value for name, value in self.block.parameters().items() if name in self.moving]


def resolve_trainable(model: Network, tune: Tune) -> list[TrainablePlan]:
    """Decide which blocks are trained, from which epoch on and at which learning rate.

    The head is always trained. With `layer_lr_decay` d, the last backbone block has the multiplier d, the one below d², and
    so on (Howard and Ruder 2018, section 3.1, with d = 1/2.6); the head has `head_lr_multiplier`.

    Raises:
        RecipeError: `freeze` names nothing that exists, or `unfreeze` asks for more than is frozen.
        RunFailed: a parameter is in no block, or in two.
    """
    blocks = model.blocks()
    _require_each_once(
        {id(value): name for name, value in model.named_parameters()},
        [id(value) for block in blocks for value in block.parameters().values()],
        "blocks",
    )
    backbone = [block for block in blocks if block.part == "backbone"]
    frozen = _frozen_names(backbone, tune.freeze)
    starts: dict[str, int | None] = {block.name: None if block.name in frozen else 0 for block in backbone}
    for step in sorted(tune.unfreeze, key=lambda step: step.epoch):
        for block in _last_with_parameters(backbone, step.layers, step.epoch):
            if starts[block.name] is None:
                starts[block.name] = step.epoch - 1
    # Parts without parameters, such as an activation, are no step in depth.
    rungs = [block.name for block in backbone if block.parameters()]
    depths = {name: len(rungs) - index for index, name in enumerate(rungs)}
    multipliers = {block.title: tune.layer_lr_decay ** depths.get(block.name, 0) for block in backbone}
    return [
        TrainablePlan(
            block=block,
            from_epoch=0 if block.part == "head" else starts[block.name],
            lr_multiplier=multipliers.get(block.title, tune.head_lr_multiplier),
            moving=frozenset(
                name for name in block.parameters() if is_moved_by(tune.adapter, name, head=block.part == "head")
            ),
            scales={name: rate for name in block.parameters() if (rate := model.rate_of(name)) != 1},
        )
        for block in blocks
    ]


def parameter_groups(movements: Sequence[TrainablePlan], lr: float) -> list[dict[str, Any]]:
    """Return one optimiser group for each learning rate and first epoch, with the parameters that are trained in some epoch.

    Besides its parameters each has `INSIDE`: which of them are matrices between the embeddings and the head.

    Raises:
        RecipeError: nothing at all is left to train.
        RunFailed: a trained parameter is in no group, or in two: it would be stepped twice.
    """
    # A block that is unfrozen later has no momentum yet while the others have, which a fused step over a group does not accept.
    groups_by: dict[tuple[float, int], list[nn.Parameter]] = {}
    wanted = dict[int, str]()
    inside: set[int] = set()
    for movement in movements:
        if movement.from_epoch is None:
            continue
        for name, value in movement.block.parameters().items():
            if name in movement.moving:
                rate = lr * movement.lr_multiplier * movement.scales.get(name, 1.0)
                groups_by.setdefault((rate, movement.from_epoch), []).append(value)
                wanted[id(value)] = name
                if movement.block.part == "backbone" and value.dim() == 2 and not _embeds(movement.block):
                    inside.add(id(value))
    groups: list[dict[str, Any]] = [
        {"params": values, "lr": rate, "base_lr": rate, INSIDE: [id(value) in inside for value in values]}
        for (rate, _), values in groups_by.items()
    ]
    _require_each_once(wanted, [id(value) for group in groups for value in group["params"]], "optimiser groups")
    if not groups:
        raise RecipeError(
            "nothing is left to train: every block with parameters is frozen",
            place="tune.freeze",
            fix="freeze less, or add a head with parameters, such as model.head: [{dense: auto}]",
        )
    return groups


def _require_each_once(wanted: dict[int, str], found: list[int], what: str) -> None:
    """Check the invariant behind all of this: no parameter is missing or counted twice."""
    counts = Counter(found)
    wrong = {name: counts[key] for key, name in wanted.items() if counts[key] != 1}
    if wrong or len(wanted) != len(counts):
        raise RunFailed(
            f"the {what} do not hold each parameter exactly once",
            found=", ".join(f"{name}: {count} times" for name, count in list(wrong.items())[:5])
            or "others than wanted",
            expected=f"each of {len(wanted)} parameters once",
            fix="this is a mistake in the model's code, not in your recipe: please report it",
        )


def start_epoch(movements: Sequence[TrainablePlan], epoch: int) -> None:
    """Put each block in the mode and each parameter in the state that it has in this epoch, counted from 0."""
    for movement in movements:
        trained = is_trained(movement, epoch)
        movement.block.module.train(trained)
        for name, value in movement.block.parameters().items():
            value.requires_grad_(trained and name in movement.moving)
        for module in movement.block.module.modules():
            own = list(module.parameters(recurse=False))
            if isinstance(module, _NORMS) and not any(value.requires_grad for value in own):
                module.eval()  # an adapter is trained around it: its statistics stay


def release(model: nn.Module) -> None:
    """Put a network into evaluation mode with nothing frozen, as after loading it."""
    model.eval()
    for parameter in model.parameters():
        parameter.requires_grad_(parameter.is_floating_point())  # quantized weights have no gradient


def is_trained(movement: TrainablePlan, epoch: int) -> bool:
    """Return whether anything in the block is trained in this epoch, counted from 0."""
    moves = bool(movement.moving) or not movement.block.parameters()
    return moves and movement.from_epoch is not None and epoch >= movement.from_epoch


def never_moves(movement: TrainablePlan) -> bool:
    """Return whether the block stays frozen, in evaluation mode, through the whole stage."""
    return movement.from_epoch is None or (bool(movement.block.parameters()) and not movement.moving)


def trainable_state_dict(model: nn.Module, movements: Sequence[TrainablePlan]) -> dict[str, Tensor]:
    """Return the parameters and buffers that a stage can change, by name: all that a checkpoint holds of the network.

    Frozen ones are in the model that the stage starts from. A tensor that several names share is listed under the first of them.
    """
    found: dict[str, Tensor] = {}
    seen: set[int] = set()
    state = model.state_dict(keep_vars=True)
    for movement in movements:
        if never_moves(movement):
            continue
        for name, value in state.items():
            if name.startswith(movement.block.prefix) and may_change(movement, name) and id(value) not in seen:
                found[name] = value.detach()
                seen.add(id(value))
    return found


def load_trainable(model: nn.Module, movements: Sequence[TrainablePlan], tensors: dict[str, Tensor]) -> None:
    """Put back what `trainable_state_dict` took out.

    Raises:
        ArtifactError: the tensors are not those that this stage changes.
    """
    wanted = trainable_state_dict(model, movements)
    differing = sorted(
        name
        for name in {*wanted, *tensors}
        if name not in wanted or name not in tensors or wanted[name].shape != tensors[name].shape
    )
    if differing:
        raise ArtifactError(
            "the checkpoint does not fit what this stage trains",
            found=", ".join(differing[:5]),
            expected=f"{len(wanted)} tensors, by the names and shapes of the network's",
            fix="start a new run: the recipe or the network has changed since the checkpoint",
        )
    model.load_state_dict(tensors, strict=False)


def may_change(movement: TrainablePlan, name: str) -> bool:
    """Return a moving parameter; or a buffer, such as a running statistic, of a module that moves itself."""
    parameters = movement.block.parameters()
    if name in movement.block.elsewhere:
        return False
    if name in parameters:
        return name in movement.moving
    owner = name.rpartition(".")[0] + "."
    beside = [other for other in parameters if other.startswith(owner) and "." not in other.removeprefix(owner)]
    return bool(movement.moving.intersection(beside)) or len(movement.moving) == len(parameters)


def _frozen_names(backbone: list[Block], freeze: int | float | str | list[str]) -> set[str]:
    names = [block.name for block in backbone]
    if freeze == "none":
        return set()
    if freeze == "backbone":
        return set(names)
    if isinstance(freeze, bool) or (isinstance(freeze, int | float) and freeze < 0):
        raise _bad_freeze(freeze, backbone)
    if isinstance(freeze, int):
        with_parameters = [block.name for block in backbone if any(True for _ in block.module.parameters())]
        if freeze > len(with_parameters):
            raise _bad_freeze(freeze, backbone)
        # Blocks without parameters below the last frozen one go with it: there is nothing in them to train.
        return set(names[: names.index(with_parameters[freeze - 1]) + 1]) if freeze else set()
    if isinstance(freeze, float):
        if freeze > 1:
            raise _bad_freeze(freeze, backbone)
        count = sum(any(True for _ in block.module.parameters()) for block in backbone)
        return _frozen_names(backbone, round(freeze * count))
    if freeze == "embeddings":
        chosen = {block.name for block in backbone if _embeds(block)}
        if not chosen:
            raise _bad_freeze(freeze, backbone)
        return chosen
    wanted = [freeze] if isinstance(freeze, str) else freeze
    chosen: set[str] = set()
    for pattern in wanted:
        found = matches(pattern[3:], names, "tune.freeze") if pattern.startswith("re:") else {pattern} & set(names)
        if not found:
            raise _bad_freeze(pattern, backbone)
        chosen |= found
    return chosen


def _embeds(block: Block) -> bool:
    """Return whether a block makes vectors of tokens or patches; a layer of the stack with a table of its own is none."""
    if re.search(r"\.\d+$", block.name):
        return False
    return "embed" in block.name or any(isinstance(module, nn.Embedding) for module in block.module.modules())


def _last_with_parameters(backbone: list[Block], count: int | Literal["all"], epoch: int) -> list[Block]:
    learnable = [block for block in backbone if block.parameters()]
    if count == "all":
        return learnable
    if count > len(learnable):
        raise RecipeError(
            f"unfreeze asks for {count} blocks at epoch {epoch}, the backbone has {len(learnable)} with parameters",
            place="tune.unfreeze",
            expected=f"at most {len(learnable)} layers",
            fix="lower `layers`; `tunewright design recipe.yaml` prints the blocks",
        )
    return learnable[len(learnable) - count :]


def _bad_freeze(freeze: object, backbone: list[Block]) -> RecipeError:
    names = ", ".join(block.name for block in backbone)
    return RecipeError(
        "tune.freeze matches nothing in this network",
        place="tune.freeze",
        found=freeze,
        expected=f"none, backbone, embeddings, a number of blocks, a fraction from 0.0 to 1.0, re:PATTERN, or names of: {names}",
        fix="`tunewright design recipe.yaml` prints the blocks",
    )
