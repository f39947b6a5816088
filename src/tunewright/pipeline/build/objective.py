"""Choose a stage's objective and augmentation."""

from __future__ import annotations

from tunewright.data.audio.augmentation import SoundChanges
from tunewright.data.image.augmentation import Augmentation, build_augmentation
from tunewright.data.prepared import Prepared
from tunewright.errors import RecipeError
from tunewright.recipe.schema import Recipe
from tunewright.tasks.base.targets import TargetEncoder
from tunewright.tasks.base.task import InputEncoder, Task
from tunewright.training.objectives.base import Objective
from tunewright.training.objectives.registry import build_objective, build_own_objective


def objective_of(recipe: Recipe, task: Task, inputs: InputEncoder, prepared: Prepared) -> Objective:
    """What a stage minimises: the recipe's objective, or the task's usual one.

    Raises:
        RecipeError: there is none of that name, or it does not fit the target.
    """
    usual = task.objective if task.objective_of is None else task.objective_of(inputs)
    named = recipe.train.objective or usual
    if task.objectives is not None:
        return build_own_objective(named, recipe.train, task.objectives, inputs)
    return build_objective(named, recipe.train, classes=prepared.manifest.classes, prepared=prepared)


def augmentation_of(
    recipe: Recipe, task: Task, objective: Objective, target: TargetEncoder | None
) -> Augmentation | SoundChanges | None:
    """What `train.augment` asks for.

    Raises:
        RecipeError: the inputs are no pictures, or mixed labels do not fit the objective.
    """
    steps = recipe.train.augment
    if task.augment is not None:
        return task.augment(steps, recipe.seed)
    found = build_augmentation(steps, seed=recipe.seed, classes=target.outputs if target else 0)
    if found is None:
        return None
    if task.frame is None:
        raise RecipeError(
            f"{task.name} has nothing that could be changed so",
            place="train.augment",
            found=steps,
            expected="a task on images or on speech",
            fix="leave train.augment out",
        )
    if found.mixes and not objective.takes_soft_targets:
        raise RecipeError(
            "mixed pictures have shares of several classes, which only cross_entropy takes",
            place="train.augment",
            found=objective.name,
            expected="train.objective: cross_entropy",
            fix="take mixup and cutmix out of train.augment",
        )
    return found
