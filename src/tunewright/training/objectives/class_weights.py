"""Compute the weights of classes in a loss."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from tunewright.data.prepared import Prepared
from tunewright.errors import RecipeError
from tunewright.recipe.named import suggest


def class_weights(
    setting: str | dict[str, float] | None,
    classes: Sequence[str],
    count: Callable[[], Sequence[int]],
    *,
    rows: int | None = None,
) -> Float[Tensor, " classes"] | None:
    """Return the weight of each class, or None.

    "balanced" is N / (K n_k) for K classes, with n_k of the N training examples in class k: every class has the same total weight
    (King and Zeng 2001, "Logistic regression in rare events data"). With several labels per example it is (N − n_k) / n_k: the
    examples with a label have the same total weight as those without. In a mapping, a class that is not named has weight 1.

    Args:
        count: returns n_k of each class.
        rows: N, where an example has several labels; None: it has one class.

    Raises:
        RecipeError: an unknown class, a weight that is not above 0, or nothing to balance a class with.
    """
    if setting is None:
        return None
    if isinstance(setting, str):
        counts = count()
        if 0 in counts:
            raise RecipeError(
                f"the class {classes[list(counts).index(0)]!r} has no training row to balance it by",
                place="train.class_weights",
                found=setting,
                fix="write the weights by class, or data.split: {by: stratified}",
            )
        if rows is not None:
            # A label that every example has keeps weight 1, not 0.
            return torch.tensor([(rows - number) / number if number < rows else 1.0 for number in counts])
        return torch.tensor([sum(counts) / (len(counts) * number) for number in counts])
    for name, weight in setting.items():
        if name not in classes:
            raise RecipeError(
                "there is no such class",
                place="train.class_weights",
                found=name,
                expected=", ".join(classes[:20]),
                fix=suggest(name, classes),
            )
        if not 0 < weight < math.inf:
            raise RecipeError(
                "a class weight must be above 0",
                place=f"train.class_weights.{name}",
                found=weight,
                expected="a number above 0",
                fix="correct the weight, or remove the class: its weight is then 1",
            )
    return torch.tensor([float(setting.get(name, 1.0)) for name in classes])


def count_classes(prepared: Prepared, classes: Sequence[str]) -> list[int]:
    """Count the training examples of each class."""
    import pyarrow as pa
    import pyarrow.compute as pc

    target = prepared.manifest.target
    assert target is not None
    column = prepared.table("train", [target])[target]
    flat = pc.list_flatten(column) if pa.types.is_list(column.type) else column.cast(pa.string())
    values = flat.value_counts()
    counts = {entry["values"].as_py(): entry["counts"].as_py() for entry in values}
    return [counts.get(name, 0) for name in classes]
