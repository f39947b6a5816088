"""Choose how a pretrained network is tuned where the recipe does not say."""

from __future__ import annotations

from tunewright.console import Console
from tunewright.pipeline.build.few_shot_default import few_shot_tune
from tunewright.recipe.schema import Recipe, Tune, Unfreeze
from tunewright.training.optimizers.registry import default_lr

# The head begins with random weights and learns faster than what is pretrained.
HEAD_MULTIPLIER = 10.0


LAYER_DECAY = 0.9


# Learning rates that usually do well, as a share of what the optimiser's users begin with from scratch: 5e-5 of Adam's
# 1e-3 for a whole encoder (Devlin et al. 2019, section A.3), ten times as much for an adapter (Biderman et al. 2024).
FOR_ALL = 0.05


FOR_AN_ADAPTER = 0.5


def chosen_tune(recipe: Recipe, few: float | None, console: Console) -> Tune:
    """What of a pretrained network moves: the recipe's word, or the usual, and then says so.

    Args:
        few: as for `pretrained_network`.
    """
    if recipe.tune.model_fields_set:
        return recipe.tune
    if few is not None:
        return few_shot_tune(few, console)
    tune = usual_tune(recipe.train.epochs)
    console.info(f"tune is left out, so: {_words(tune)}")
    return tune


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


def usual_lr(recipe: Recipe, tune: Tune, console: Console) -> float:
    """The learning rate for a pretrained network where the recipe gives none, by what moves; says so."""
    if tune.method == "features":
        return default_lr(recipe.train.optimizer)  # nothing learns by it
    if tune.adapter is not None:
        what, share = "an adapter learns", FOR_AN_ADAPTER
    elif "backbone" in (tune.freeze, recipe.tune.freeze) and not tune.unfreeze:
        what, share = "only the head learns", 1.0
    else:
        what, share = "pretrained weights move", FOR_ALL
    lr = share * default_lr(recipe.train.optimizer)
    console.info(f"train.lr is left out, so: {lr:g}, as {what}")
    return lr


def _words(tune: Tune) -> str:
    if tune.unfreeze:
        first = "epoch 1 trains the head alone, then everything moves"
    else:
        first = "everything moves"
    return (
        f"{first}; each layer's learning rate is {tune.layer_lr_decay:g} times that of the layer above, "
        f"the head's {tune.head_lr_multiplier:g} times train.lr"
    )
