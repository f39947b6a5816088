"""Build a stage's network from our own layers."""

from __future__ import annotations

import math

from tunewright.console import Console
from tunewright.models.backbone import Backbone, weights_folder
from tunewright.models.build import build_network, describe_model
from tunewright.models.core.layers import resolve_auto
from tunewright.models.core.meta_weights import reads_pretrained
from tunewright.models.core.network import SequentialNetwork
from tunewright.models.families import load_backbone_weights
from tunewright.models.replace_head import fit_input, replace_head, require_sequential
from tunewright.pipeline.build.pretrained_network import same_target
from tunewright.random import mix
from tunewright.recipe.schema import Model, Recipe
from tunewright.tasks.base.task import Preprocessor, StartingModel, Task
from tunewright.training.objectives.base import Objective


def own_network(
    recipe: Recipe,
    preprocessor: Preprocessor,
    origin: StartingModel | None,
    backbone: Backbone | None,
    objective: Objective,
    console: Console,
) -> SequentialNetwork:
    """Return a network of our own layers: new, with or without pretrained weights, or the starting model's with its head or a new one."""
    inputs, target = preprocessor.inputs, preprocessor.target
    outputs = target.outputs if target else math.prod(inputs.input_shape)
    block = _model_block(recipe.model, preprocessor.task, supervised=objective.supervised)
    block = inputs.completed(block)
    if backbone is not None and "layers" in backbone.config:  # of a file of Keras
        layers, head = backbone.config["layers"], block.head or [{"dense": "auto"}]
        block = block.model_copy(update={"backbone": None, "layers": layers, "head": head})
    if origin is None:
        spec = describe_model(block, input_shape=inputs.input_shape, outputs=outputs)
        network = build_network(spec, seed=mix(recipe.seed, "weights"))
        if backbone is not None and reads_pretrained():
            load_backbone_weights(network, weights_folder(backbone))
        return network
    return _adapt(origin, block, preprocessor, outputs, recipe.seed, console)


def _model_block(model: Model, task: Task, *, supervised: bool) -> Model:
    """Return the recipe's model block, completed by the task's default; without labels the head is a decoder."""
    if model.layers is None and model.backbone is None:
        default = Model(**task.network.default)
        model = default.model_copy(update={"head": model.head or default.head, "weights": model.weights})
    if supervised:
        return model
    layers = model.layers[:-1] if model.layers and model.head is None else model.layers
    return model.model_copy(update={"layers": layers, "head": [{"dense": "auto"}]})


def _adapt(
    origin: StartingModel, block: Model, preprocessor: Preprocessor, outputs: int, seed: int, console: Console
) -> SequentialNetwork:
    """Return the starting model's backbone with its own head where that fits, or with the new one."""
    network = fit_input(require_sequential(origin.network, origin.folder), preprocessor.inputs.input_shape)
    head = block.head or (block.layers[-1:] if block.layers else [{"dense": "auto"}])
    if same_target(origin.preprocessor, preprocessor) and resolve_auto(head, outputs) == network.spec.head:
        return network
    console.info(f"new head on the pretrained backbone: {head}, {outputs} outputs")
    return replace_head(network, head, outputs=outputs, seed=mix(seed, "weights"))
