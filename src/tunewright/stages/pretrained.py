"""A stage's network from a pretrained backbone, or from what a stage before made of one; and what moves by default."""

from __future__ import annotations

from typing import Any

from tunewright.errors import ArtifactError, RecipeError
from tunewright.models.pretrained import Backbone, weights_folder
from tunewright.models.transformer import (
    Transformer,
    build_transformer,
    continue_from,
    describe_transformer,
    load_backbone,
)
from tunewright.random import mix
from tunewright.recipe.schema import Recipe, Tune, Unfreeze
from tunewright.stages.console import Screen
from tunewright.stages.job import Origin
from tunewright.stages.method import few_shot_tune
from tunewright.tasks.base import Preprocessor
from tunewright.training.optim import default_lr

# The head begins with random weights and learns faster than what is pretrained.
HEAD_MULTIPLIER = 10.0
LAYER_DECAY = 0.9
# Learning rates that usually do well, as a share of what the optimiser's users begin with from scratch: 5e-5 of Adam's
# 1e-3 for a whole encoder (Devlin et al. 2019, section A.3), ten times as much for an adapter (Biderman et al. 2024).
FOR_ALL = 0.05
FOR_AN_ADAPTER = 0.5


def pretrained_network(
    recipe: Recipe,
    preprocessor: Preprocessor,
    origin: Origin | None,
    backbone: Backbone | None,
    few: float | None,
    screen: Screen,
) -> tuple[Transformer, Tune]:
    """The network, and what of it moves.

    Args:
        few: examples a class, where they are so few that a new head is solved for and not trained.

    Raises:
        RecipeError: the task has no use for such a backbone.
        ArtifactError: the weights cannot be read, or the model to start from is of another kind.
    """
    purpose = preprocessor.task.purpose
    if purpose is None:
        raise RecipeError(
            f"{preprocessor.task.name} has no use for a pretrained backbone of the Transformers library",
            place="model.backbone",
            found=recipe.model.backbone,
            fix="model.backbone: mlp",
        )
    classes = preprocessor.target.classes if preprocessor.target else None
    seed = mix(recipe.seed, "weights")
    if origin is not None:
        network = _go_on(recipe, preprocessor, origin, classes, seed, screen)
        new_head = network is not origin.network
        return network, few_shot_tune(few, screen) if few is not None and new_head else recipe.tune
    assert backbone is not None
    described = describe_transformer(
        purpose, backbone.config, head=recipe.model.head, classes=classes, several=has_several(preprocessor)
    )
    if recipe.model.weights == "random":
        return build_transformer(described, seed=seed), recipe.tune
    described = {**described, "base": backbone.name, "base_fingerprint": backbone.fingerprint}
    network = load_backbone(weights_folder(backbone), described, seed=seed)
    if recipe.tune.model_fields_set:
        return network, recipe.tune
    if few is not None:
        return network, few_shot_tune(few, screen)
    tune = usual_tune(recipe.train.epochs)
    screen.say(f"tune is left out, so: {_words(tune)}")
    return network, tune


def usual_tune(epochs: int) -> Tune:
    """One epoch for the new head alone, then everything, slower towards the input (fastai's `fine_tune`).

    With a single epoch there is nothing to divide: all moves from the start.
    """
    if epochs == 1:
        return Tune(head_lr_multiplier=HEAD_MULTIPLIER, layer_lr_decay=LAYER_DECAY)
    return Tune(
        freeze="backbone",
        unfreeze=[Unfreeze(epoch=2, layers="all")],
        head_lr_multiplier=HEAD_MULTIPLIER,
        layer_lr_decay=LAYER_DECAY,
    )


def usual_lr(recipe: Recipe, tune: Tune, screen: Screen) -> float:
    """The learning rate for a pretrained network where the recipe gives none, by what moves; says so."""
    if recipe.model.weights == "random" or tune.method == "features":
        return default_lr(recipe.train.optimizer)
    if tune.adapter is not None:
        what, share = "an adapter learns", FOR_AN_ADAPTER
    elif tune.freeze == "backbone" and not tune.unfreeze:
        what, share = "only the head learns", 1.0
    else:
        what, share = "pretrained weights move", FOR_ALL
    lr = share * default_lr(recipe.train.optimizer)
    screen.say(f"train.lr is left out, so: {lr:g}, as {what}")
    return lr


def same_target(known: Preprocessor, new: Preprocessor) -> bool:
    """Whether a head that was trained for one target serves the other."""
    if known.target is None or new.target is None:
        return False
    same = known.target.classes == new.target.classes and known.target.several == new.target.several
    return same and known.task.purpose == new.task.purpose


def has_several(preprocessor: Preprocessor) -> bool:
    """Whether an example has any number of labels."""
    return preprocessor.target is not None and preprocessor.target.several


def _go_on(
    recipe: Recipe,
    preprocessor: Preprocessor,
    origin: Origin,
    classes: list[str] | None,
    seed: int,
    screen: Screen,
) -> Transformer:
    if not isinstance(origin.network, Transformer):
        raise ArtifactError(
            "the model to start from is no model of the Transformers library",
            file=origin.folder,
            fix="leave model.backbone out, or start from another model",
        )
    if "adapter" in origin.network.described and recipe.tune.adapter is not None:
        raise RecipeError(
            "an adapter cannot be put on an adapter",
            place="tune.adapter",
            fix="leave tune.adapter out: the weights of the adapter before are merged and go on",
        )
    wanted: dict[str, Any] = describe_transformer(
        preprocessor.task.purpose or "text-classification",
        origin.network.described["config"],
        head=recipe.model.head,
        classes=classes,
        several=has_several(preprocessor),
    )
    same_head = recipe.model.head is None or wanted["head"] == origin.network.described["head"]
    if same_target(origin.preprocessor, preprocessor) and same_head and "adapter" not in origin.network.described:
        return origin.network
    screen.say("new head on the pretrained backbone")
    if recipe.tune.adapter is not None and origin.folder is not None:
        base = Backbone(name=str(origin.folder.resolve()), folder=origin.folder, config=wanted["config"])
        wanted = {**wanted, "base": base.name, "base_fingerprint": base.fingerprint}
    return continue_from(origin.network, wanted, seed=seed)


def _words(tune: Tune) -> str:
    if tune.unfreeze:
        first = "epoch 1 trains the head alone, then everything moves"
    else:
        first = "everything moves"
    return (
        f"{first}; each layer's learning rate is {tune.layer_lr_decay:g} times that of the layer above, "
        f"the head's {tune.head_lr_multiplier:g} times train.lr"
    )
