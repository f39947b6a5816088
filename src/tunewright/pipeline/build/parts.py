"""From a stage's recipe to the things that training needs: data, encoders, network, objective."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from tunewright.console import Console
from tunewright.data.batches.batch import Examples
from tunewright.data.prepared import Prepared
from tunewright.errors import ArtifactError, RecipeError
from tunewright.models.backbone import Backbone
from tunewright.models.core.meta_weights import Weights, building_with, use_fake_weights
from tunewright.models.core.network import Network
from tunewright.models.hub.adapters import add_adapter
from tunewright.pipeline.build.few_shot_default import few_examples, settle_method
from tunewright.pipeline.build.objective import augmentation_of, objective_of
from tunewright.pipeline.build.own_network import own_network
from tunewright.pipeline.build.pretrained_network import pretrained_network
from tunewright.pipeline.build.privacy_rules import private_recipe, require_private
from tunewright.pipeline.build.tuning_default import chosen_tune, usual_lr
from tunewright.recipe.schema import Recipe, Tune
from tunewright.runs.summary.data import DataDescription
from tunewright.tasks.base.encoders import InputEncoder
from tunewright.tasks.base.task import Preprocessor, StartingModel, Task
from tunewright.tasks.registry import get_task
from tunewright.training.objectives.base import Objective
from tunewright.training.optimizers.registry import default_lr


@dataclass(frozen=True, kw_only=True)
class StageParts:
    """All that a training stage is made of, before the first step."""

    recipe: Recipe
    task: Task
    prepared: Prepared
    preprocessor: Preprocessor
    network: Network
    objective: Objective
    tune: Tune
    """What moves: the recipe's, or the default for a pretrained network."""
    lr: float
    """The peak learning rate: the recipe's, or the usual one."""
    augmentation: Any
    """What changes training examples, made by the modality; None: nothing does."""
    weights: Weights = "pretrained"
    """What the network's weights are."""
    encoded: dict[str, Examples | None] = field(default_factory=dict)
    description: DataDescription | None = None
    """What is known of the training data already; None: `describe` finds it out."""

    def examples(self, split: str) -> Examples | None:
        """A split as tensors; None when it has no rows."""
        if split not in self.encoded:
            found = encode_split(self.prepared, self.preprocessor, split)
            self.encoded[split] = self._as_trained(found) if split == "train" and found is not None else found
        return self.encoded[split]

    def _as_trained(self, examples: Examples) -> Examples:
        """Return the training examples with augmentation, and with each source of a mix by its weight."""
        if self.augmentation is not None:
            examples = examples.with_augmentation(self.augmentation)
        if self.recipe.data.mix and self.task.inputs.mix is not None:
            examples = self.task.inputs.mix(examples, self.prepared, self.recipe)
        return examples

    def describe(self, train: Examples, console: Console) -> DataDescription | None:
        """Print what the training examples are, and return it for the summary; None: there is nothing to say."""
        if self.description is not None:
            return self.description
        describe = self.task.inputs.describe
        return None if describe is None else describe(self.preprocessor.inputs, self.prepared, train, console)


def build_parts(
    recipe: Recipe,
    prepared: Prepared,
    origin: StartingModel | None,
    backbone: Backbone | None,
    console: Console,
    *,
    weights: Weights = "pretrained",
) -> StageParts:
    """Build everything from a stage's recipe.

    Args:
        origin: the model to start from; None: from random weights, or from the backbone's.
        backbone: the pretrained backbone that the recipe names.
        weights: what the network's weights are, see `models/core/meta_weights.py`.

    Raises:
        UserError: the recipe, the data and the source do not fit together.
    """
    task = get_task(recipe.task)
    require_private(recipe)
    if recipe.tune.quantize is not None and recipe.tune.adapter is None:
        raise RecipeError(
            "quantized weights cannot be trained without an adapter",
            place="tune.quantize",
            found=recipe.tune.quantize,
            expected="tune.adapter: lora or ia3",
            fix="add tune.adapter: lora, or remove tune.quantize",
        )
    if recipe.privacy is not None:
        recipe = private_recipe(recipe, console.info)
    random = origin is None and (recipe.model.weights == "random" or backbone is None or not backbone.pretrained)
    if random and task.network.needs_trained_model:
        raise RecipeError(
            f"{task.name} needs a model that has learned something before",
            place="model",
            found="random weights",
            expected="a stage before this one, a model's folder or a hub id",
            fix="name the model: model: {weights: runs/NAME/finetune/model}; or write the stage that makes it into `stages`",
        )
    inputs = _input_encoder(task, prepared, recipe, origin, backbone)
    if recipe.model.decoding is not None and not inputs.searches:
        raise RecipeError(
            f"{task.name} has no decoder: model.decoding is for speech recognition",
            place="model.decoding",
            found=recipe.model.decoding,
            expected="task: speech-recognition",
            fix="remove model.decoding",
        )
    objective = objective_of(recipe, task, inputs, prepared)
    target = task.target.fit(prepared, recipe) if objective.supervised and task.target is not None else None
    preprocessor = Preprocessor(task=task, inputs=inputs, target=target)
    from_library = origin is not None and origin.network.from_library
    few = few_examples(recipe, task, prepared)
    with building_with(weights):
        if task.network.build is not None:
            network, note = task.network.build(recipe, preprocessor, backbone, origin)
            tune = recipe.tune
            if note is not None:
                console.info(note)
        elif (backbone is not None and not backbone.own) or from_library:
            network, tune = pretrained_network(recipe, preprocessor, origin, backbone, few, console)
        else:
            network = own_network(recipe, preprocessor, origin, backbone, objective, console)
            tune = recipe.tune if backbone is None or origin is not None else chosen_tune(recipe, few, console)
    tune = settle_method(tune, task, pretrained=not random)
    if (backbone is not None or from_library) and not random:
        lr = recipe.train.lr or usual_lr(recipe, tune, console)
    else:
        lr = recipe.train.lr or default_lr(recipe.train.optimizer)
    inputs.configure(network)
    if weights == "sharded":
        use_fake_weights(network)
    if tune.adapter is not None:
        with building_with("pretrained" if weights == "sharded" else weights):
            network = add_adapter(network, tune.adapter, seed=recipe.seed, bits=tune.quantize)
    if weights == "meta":
        use_fake_weights(network)
    return StageParts(
        recipe=recipe,
        task=task,
        prepared=prepared,
        preprocessor=preprocessor,
        network=network,
        objective=objective,
        tune=tune,
        lr=lr,
        augmentation=augmentation_of(recipe, task, objective, target),
        weights=weights,
    )


def encode_split(prepared: Prepared, preprocessor: Preprocessor, split: str) -> Examples | None:
    """A split as tensors; None when it has no rows."""
    if prepared.rows(split) == 0:
        return None
    return preprocessor.inputs.split(prepared, split, preprocessor.target)


def _input_encoder(
    task: Task, prepared: Prepared, recipe: Recipe, origin: StartingModel | None, backbone: Backbone | None
) -> InputEncoder:
    """A network that was trained before, by the same task or another with such inputs, keeps its own encoding."""
    if origin is None:
        return task.inputs.fit(prepared, recipe, backbone, None)
    known = origin.preprocessor
    if known.task.inputs.name != task.inputs.name:
        raise ArtifactError(
            f"the model was trained for {known.task.name}, which reads other inputs than {task.name}",
            expected=f"a model trained for {task.name}",
            fix="choose another model.weights, or another task",
        )
    return task.inputs.fit(prepared, recipe, backbone, known.inputs)
