"""Build the objective that a recipe names: one of those below, of an installed package, or of the task itself."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from tunewright.data.prepared import Prepared
from tunewright.errors import DataError, RecipeError
from tunewright.plugins import Registry
from tunewright.recipe.named import check_options, choose, parse_named
from tunewright.recipe.schema import Named, Train
from tunewright.training.objectives import reconstruction, supervised
from tunewright.training.objectives.base import LabelSettings, NamedObjective, Objective

# Looked up by name; a third party adds its own by the entry point group.
OBJECTIVES = Registry[NamedObjective](
    "tunewright.objectives",
    {
        objective.name: objective
        for objective in (
            supervised.MSE,
            supervised.MAE,
            supervised.CROSS_ENTROPY,
            supervised.BINARY_CROSS_ENTROPY,
            reconstruction.MASKED,
            reconstruction.DENOISING,
        )
    },
)


def build_own_objective(
    named: Named, train: Train, objectives: Mapping[str, Callable[..., Objective]], encoder: object
) -> Objective:
    """Build the objective that the recipe names, among the task's own.

    Args:
        objectives: by name, each a function of the task's input encoder and keyword-only options.

    Raises:
        RecipeError: no such objective or option.
    """
    name, given = parse_named(named, "train.objective")
    function = choose(objectives, name, "train.objective")
    options = check_options(function, given, f"train.objective.{name}")
    _refuse_class_settings(name, train)
    return function(encoder, **options)


def build_objective(named: Named, train: Train, *, classes: Sequence[str] | None, prepared: Prepared) -> Objective:
    """Build the objective that the recipe names.

    Args:
        train: for `class_weights` and `label_smoothing`.
        classes: the target's classes; None when the target is a number or there is none.
        prepared: to count the training examples of each class.

    Raises:
        RecipeError: no such objective or option, or one that does not fit the target.
        DataError: it needs labels, and the data has none.
    """
    name, given = parse_named(named, "train.objective")
    objective = choose(OBJECTIVES, name, "train.objective")
    options = check_options(objective.build, given, f"train.objective.{name}")
    if objective.target != "classes":
        _refuse_class_settings(name, train)
    if objective.target is not None:
        _require_target(objective, classes, prepared)
    return objective.build(LabelSettings(train=train, classes=classes, prepared=prepared), **options)


def _require_target(objective: NamedObjective, classes: Sequence[str] | None, prepared: Prepared) -> None:
    """Raise an error when the data has no target, or one of the other kind."""
    if prepared.manifest.target is None:
        raise DataError(
            f"{objective.name} learns from labels, the data has none",
            file=prepared.manifest.source,
            fix=f"name the column with data.target, or pretrain without labels: train.objective: {reconstruction.MASKED.name}",
        )
    found = "numbers" if classes is None else "classes"
    if objective.target != found:
        raise RecipeError(
            f"{objective.name} does not fit a target of {found}",
            place="train.objective",
            found=objective.name,
            expected=", ".join(name for name, other in OBJECTIVES.items() if other.target in (found, None)),
            fix="remove train.objective: the task chooses one that fits",
        )


def _refuse_class_settings(name: str, train: Train) -> None:
    """Raise a RecipeError for class weights or label smoothing, which this objective does not use."""
    for key, is_set in (("class_weights", train.class_weights is not None), ("label_smoothing", train.label_smoothing)):
        if is_set:
            raise RecipeError(
                f"train.{key} is for classes, and {name} has none",
                place=f"train.{key}",
                found=getattr(train, key),
                fix=f"remove train.{key}, or write train.objective: {supervised.CROSS_ENTROPY.name}",
            )
