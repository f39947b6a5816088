"""From a stage's recipe to the things that training needs: data, encoders, network, objective."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from tunewright.data.batching import TensorExamples
from tunewright.data.prepare import Prepared, prepare
from tunewright.errors import ArtifactError
from tunewright.models.build import build_network, describe_model
from tunewright.models.layers import resolve_auto
from tunewright.models.network import Network
from tunewright.models.saved import SavedModel
from tunewright.models.surgery import fit_input, replace_head
from tunewright.random import mix
from tunewright.recipe.schema import Model, Recipe
from tunewright.stages.console import Screen
from tunewright.tasks.base import InputEncoder, Preprocessor, Task
from tunewright.tasks.rows import unused_columns
from tunewright.tasks.table import get_task, load_preprocessor
from tunewright.tasks.targets import fit_target
from tunewright.training.objectives import Objective, build_objective


@dataclass(frozen=True, kw_only=True)
class Ingredients:
    """All that a training stage is made of, before the first step."""

    recipe: Recipe
    task: Task
    prepared: Prepared
    preprocessor: Preprocessor
    network: Network
    objective: Objective

    def examples(self, split: str) -> TensorExamples | None:
        """A split as tensors; None when it has no rows."""
        return encode_split(self.prepared, self.preprocessor, split)


def prepare_data(recipe: Recipe, base: Path, screen: Screen) -> Prepared:
    """The prepared data of a recipe; at once when it was prepared before."""
    task = get_task(recipe.task)
    with screen.counting(f"preparing {recipe.data.source}") as progress:
        prepared = prepare(
            recipe.data,
            seed=recipe.seed,
            target_kind=task.target_kind if recipe.data.labelled else None,
            base=base,
            progress=progress,
        )
    if recipe.task.startswith("tabular") and recipe.data.input is None and (unused := unused_columns(prepared)):
        screen.warn(f"columns that are neither numbers nor categories are not used: {', '.join(unused)}")
    return prepared


def gather(recipe: Recipe, prepared: Prepared, origin: SavedModel | None, screen: Screen) -> Ingredients:
    """Build everything from a stage's recipe.

    Args:
        origin: the model to start from; None: from random weights.

    Raises:
        UserError: the recipe, the data and the source do not fit together.
    """
    task = get_task(recipe.task)
    objective = build_objective(
        recipe.train.objective or task.objective, recipe.train, classes=prepared.manifest.classes, prepared=prepared
    )
    inputs = _input_encoder(task, prepared, recipe, origin)
    target = fit_target(prepared) if objective.supervised else None
    preprocessor = Preprocessor(task=task, inputs=inputs, target=target)
    outputs = target.outputs if target else _size(inputs.input_shape)
    block = _model_block(recipe.model, task, supervised=objective.supervised, origin=origin)
    if origin is None:
        described = describe_model(block, input_shape=inputs.input_shape, outputs=outputs)
        network = build_network(described, seed=mix(recipe.seed, "weights"))
    else:
        network = _adapt(origin, block, preprocessor, outputs, recipe.seed, screen)
    return Ingredients(
        recipe=recipe, task=task, prepared=prepared, preprocessor=preprocessor, network=network, objective=objective
    )


def encode_split(prepared: Prepared, preprocessor: Preprocessor, split: str) -> TensorExamples | None:
    """A split as tensors; None when it has no rows."""
    if prepared.rows(split) == 0:
        return None
    table = prepared.table(split)
    return TensorExamples(
        inputs=preprocessor.inputs.encode(table),
        target=preprocessor.target.encode(table) if preprocessor.target else None,
        rows=torch.tensor(table["_row"].to_numpy()),
    )


def is_stochastic(network: nn.Module) -> bool:
    """Whether the network draws random numbers while it trains."""
    return any(isinstance(module, nn.Dropout | nn.Dropout2d) for module in network.modules())


def _model_block(model: Model, task: Task, *, supervised: bool, origin: SavedModel | None) -> Model:
    """The recipe's model block, completed by the task's default; without labels the head is a decoder."""
    if model.layers is None and model.backbone is None:
        default = Model(**task.default_model)
        model = default.model_copy(update={"head": model.head or default.head, "weights": model.weights})
    if supervised:
        return model
    layers = model.layers[:-1] if model.layers and model.head is None else model.layers
    return model.model_copy(update={"layers": layers, "head": [{"dense": "auto"}]})


def _input_encoder(task: Task, prepared: Prepared, recipe: Recipe, origin: SavedModel | None) -> InputEncoder:
    """A network that was trained before keeps the encoding that it was trained with, where the task has columns."""
    fitted = task.fit_inputs(prepared, recipe.data)
    if origin is None:
        return fitted
    known = load_preprocessor(origin.extra["preprocessor"])
    if known.task.load_inputs is not task.load_inputs:
        raise ArtifactError(
            f"the model was trained for {known.task.name}, which reads other inputs than {task.name}",
            expected=f"a model trained for {task.name}",
            fix="choose another model.weights, or another task",
        )
    return fitted.continue_from(known.inputs)


def _adapt(
    origin: SavedModel, block: Model, preprocessor: Preprocessor, outputs: int, seed: int, screen: Screen
) -> Network:
    """The source's backbone with its own head where that fits, or with the new one."""
    network = fit_input(origin.network, preprocessor.inputs.input_shape)
    known = load_preprocessor(origin.extra["preprocessor"])
    head = block.head or (block.layers[-1:] if block.layers else [{"dense": "auto"}])
    same_target = known.target is not None and preprocessor.target is not None
    same_target = same_target and known.target.classes == preprocessor.target.classes  # pyright: ignore
    if same_target and resolve_auto(head, outputs) == network.described["head"]:
        return network
    screen.say(f"new head on the pretrained backbone: {head}, {outputs} outputs")
    return replace_head(network, head, outputs=outputs, seed=mix(seed, "weights"))


def _size(shape: tuple[int, ...]) -> int:
    size = 1
    for length in shape:
        size *= length
    return size
