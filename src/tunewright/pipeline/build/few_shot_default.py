"""How a stage learns: by gradients, or from few examples by a regression on features; which, where the recipe is silent."""

from __future__ import annotations

from tunewright.console import Console
from tunewright.data.prepared import Prepared
from tunewright.errors import RecipeError
from tunewright.recipe.schema import Recipe, Tune
from tunewright.tasks.base.task import Task

# From about so many training examples a class on, ordinary fine-tuning has caught up with the methods for few (Tunstall
# et al. 2022, "Efficient few-shot learning without prompts", table 2).
FEW = 64
FEATURES = Tune(method="features", freeze="backbone")


def examples_a_class(prepared: Prepared) -> float:
    """Training examples of a class, on average."""
    return prepared.rows("train") / max(1, len(prepared.manifest.classes or ()))


def few_examples(recipe: Recipe, task: Task, prepared: Prepared) -> float | None:
    """Examples a class, where they are few and the recipe says nothing that asks for ordinary training; else None."""
    plain_head = recipe.model.head in (None, [{"dense": "auto"}])
    if task.target_kind != "category" or prepared.manifest.classes is None or not plain_head:
        return None
    if (
        recipe.tune.model_fields_set
        or recipe.privacy
        or recipe.model.weights == "random"
        or recipe.train.objective
        or recipe.train.augment
    ):
        return None
    count = examples_a_class(prepared)
    return count if count < FEW else None


def few_shot_tune(count: float, console: Console) -> Tune:
    """What moves then; says so, and how to have it otherwise."""
    console.info(
        f"{count:.3g} examples a class, fewer than {FEW}, and tune is left out, so: the pretrained network stays as it is, "
        "and a logistic regression on its features becomes its last layer"
    )
    console.info("for ordinary training write what moves, such as tune: {freeze: none}")
    return FEATURES


def settle_method(tune: Tune, task: Task, *, pretrained: bool) -> Tune:
    """What moves, after it was seen that the method fits; features move nothing but the last layer.

    Raises:
        RecipeError: the method has no use for this target or network, or for what else `tune` says.
    """
    if tune.method in (None, "gradient"):
        return tune
    if task.target_kind != "category":
        raise _unfit(tune, "it is for targets of one class a row", f"task {task.name}")
    if not pretrained:
        raise _unfit(tune, "there is nothing pretrained whose features could be used", "a network of random weights")
    useless = {"features": ["unfreeze", "layer_lr_decay", "head_lr_multiplier", "adapter"], "contrastive": ["adapter"]}
    given = [key for key in useless[tune.method] if key in tune.model_fields_set]
    if tune.method == "features" and tune.freeze != "backbone" and "freeze" in tune.model_fields_set:
        given.append("freeze")
    if given:
        raise RecipeError(
            f"tune.{given[0]} has no meaning with the method {tune.method}",
            place=f"tune.{given[0]}",
            found=getattr(tune, given[0]),
            expected="the method alone" if tune.method == "features" else "freeze, unfreeze or learning rates",
            fix=f"take {given[0]} out, or write method: gradient",
        )
    return FEATURES if tune.method == "features" else tune


def _unfit(tune: Tune, why: str, found: str) -> RecipeError:
    return RecipeError(
        f"the method {tune.method} cannot be used: {why}",
        place="tune.method",
        found=found,
        fix="leave tune.method out, or write method: gradient",
    )
