"""Choose a stage's objective and augmentation."""

from __future__ import annotations

from typing import Any

from tunewright.data.prepared import Prepared
from tunewright.errors import RecipeError
from tunewright.recipe.schema import Recipe
from tunewright.tasks.base.encoders import InputEncoder
from tunewright.tasks.base.targets import TargetEncoder
from tunewright.tasks.base.task import Task
from tunewright.training.objectives.base import Objective
from tunewright.training.objectives.registry import build_objective, build_own_objective


def objective_of(recipe: Recipe, task: Task, inputs: InputEncoder, prepared: Prepared) -> Objective:
    """What a stage minimises: the recipe's objective, or the task's usual one.

    Raises:
        RecipeError: there is none of that name, or it does not fit the target.
    """
    named = recipe.train.objective or task.objective(inputs)
    if task.objectives is not None:
        return build_own_objective(named, recipe.train, task.objectives, inputs)
    return build_objective(named, recipe.train, classes=prepared.manifest.classes, prepared=prepared)


def augmentation_of(recipe: Recipe, task: Task, objective: Objective, target: TargetEncoder | None) -> Any:
    """Return what `train.augment` asks for, as the task's modality makes it; None: nothing.

    Raises:
        RecipeError: such inputs cannot be changed, or as the modality's `augment`.
    """
    steps = recipe.train.augment
    if not steps:
        return None
    if task.inputs.augment is None:
        raise RecipeError(
            f"{task.name} has nothing that could be changed so",
            place="train.augment",
            found=steps,
            expected="a task on images or on speech",
            fix="leave train.augment out",
        )
    return task.inputs.augment(recipe, objective, target)
