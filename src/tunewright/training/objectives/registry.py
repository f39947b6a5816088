"""What is minimised, computed from logits: the sum of the examples' losses, and the weight to divide it by.

Sum and weight are kept apart so that gradients can be accumulated over micro-batches of any sizes: the loss of a step
is Σ sums / Σ weights, the same as for one large batch.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch

from tunewright.errors import DataError, RecipeError
from tunewright.recipe.named import check_options, choose, parse_named
from tunewright.recipe.schema import Named, Train
from tunewright.training.objectives.base import LossSum, Objective
from tunewright.training.objectives.reconstruction import denoising, masked
from tunewright.training.objectives.supervised import (
    SupervisedLoss,
    binary_cross_entropy,
    class_weights,
    count_classes,
    cross_entropy,
    mae,
    mse,
)

if TYPE_CHECKING:
    from tunewright.data.prepared import Prepared


NUMBER_LOSSES: dict[str, LossSum] = {"mse": mse, "mae": mae}
CLASS_LOSSES: dict[str, LossSum] = {"cross_entropy": cross_entropy, "binary_cross_entropy": binary_cross_entropy}
SELF_SUPERVISED: dict[str, Callable[..., Objective]] = {"masked": masked, "denoising": denoising}
OBJECTIVES: dict[str, Callable[..., Any]] = {**NUMBER_LOSSES, **CLASS_LOSSES, **SELF_SUPERVISED}


def build_own_objective(
    named: Named, train: Train, objectives: Mapping[str, Callable[..., Objective]], encoder: Any
) -> Objective:
    """The objective that the recipe names, of those that are one task's own.

    Args:
        objectives: by name, each made from the task's input encoder and keyword-only options.

    Raises:
        RecipeError: no such objective or option.
    """
    name, given = parse_named(named, "train.objective")
    function = choose(objectives, name, "train.objective")
    options = check_options(function, given, f"train.objective.{name}")
    _refuse_class_settings(name, train)
    return function(encoder, **options)


def build_objective(
    named: Named,
    train: Train,
    *,
    classes: Sequence[str] | None,
    prepared: Prepared,
) -> Objective:
    """The objective that the recipe names.

    Args:
        train: for `class_weights` and `label_smoothing`.
        classes: the target's classes; None when the target is a number or there is none.
        prepared: to count the training examples of each class, when the weights are to be balanced.

    Raises:
        RecipeError: no such objective or option, or one that does not fit the target.
        DataError: it needs labels, and the data has none.
    """
    name, given = parse_named(named, "train.objective")
    function = choose(OBJECTIVES, name, "train.objective")
    options = check_options(function, given, f"train.objective.{name}")
    if name not in CLASS_LOSSES:
        _refuse_class_settings(name, train)
    if name in SELF_SUPERVISED:
        return SELF_SUPERVISED[name](**options)
    if prepared.manifest.target is None:
        raise DataError(
            f"{name} learns from labels, the data has none",
            file=prepared.manifest.source,
            fix="name the column with data.target, or pretrain without labels: train.objective: masked",
        )
    if name in NUMBER_LOSSES:
        if classes is not None:
            raise _wrong_target(name, "classes", CLASS_LOSSES)
        number_loss = SupervisedLoss(name=name, formula=NUMBER_LOSSES[name], outputs=(1,))
        return Objective(name=name, supervised=True, bind=lambda seed, device: number_loss)
    if classes is None:
        raise _wrong_target(name, "numbers", NUMBER_LOSSES)
    several = prepared.manifest.target_kind == "labels"
    if several and name != "binary_cross_entropy":
        raise RecipeError(
            f"{name} is for one class a row, the target has several",
            place="train.objective",
            found=name,
            expected="binary_cross_entropy",
            fix="leave train.objective out",
        )
    if name == "binary_cross_entropy" and len(classes) != 2 and not several:
        raise RecipeError(
            "binary_cross_entropy is for two classes",
            place="train.objective",
            found=f"{len(classes)} classes",
            expected="two classes",
            fix="write train.objective: cross_entropy",
        )
    counts = prepared.rows("train") if several else None
    weights = class_weights(train.class_weights, classes, lambda: count_classes(prepared, classes), rows=counts)

    def bind(seed: int, device: torch.device) -> SupervisedLoss:
        return SupervisedLoss(
            name=name,
            formula=CLASS_LOSSES[name],
            outputs=(1, 2) if name == "binary_cross_entropy" and not several else (len(classes),),
            class_weights=weights if weights is None else weights.to(device),
            label_smoothing=train.label_smoothing,
        )

    return Objective(name=name, supervised=True, bind=bind)


def _refuse_class_settings(name: str, train: Train) -> None:
    for key, set_ in (("class_weights", train.class_weights is not None), ("label_smoothing", train.label_smoothing)):
        if set_:
            raise RecipeError(
                f"train.{key} is for classes, and {name} has none",
                place=f"train.{key}",
                found=getattr(train, key),
                fix=f"leave train.{key} out, or write train.objective: cross_entropy",
            )


def _wrong_target(name: str, target: str, fitting: dict[str, LossSum]) -> RecipeError:
    return RecipeError(
        f"{name} does not fit a target of {target}",
        place="train.objective",
        found=name,
        expected=", ".join([*fitting, *SELF_SUPERVISED]),
        fix="leave train.objective out: the task chooses one that fits",
    )
