"""Losses of labelled examples."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.nn import functional as F

from tunewright.data.batches.batch import Batch
from tunewright.errors import RecipeError
from tunewright.recipe.named import suggest
from tunewright.training.objectives.base import LossSum, wrong_size

if TYPE_CHECKING:
    from tunewright.data.prepared import Prepared


def mse(outputs: Tensor, target: Tensor, class_weights: Tensor | None = None, smoothing: float = 0.0) -> Tensor:
    """Σ (z − y)², for outputs z [B, 1] or [B] and target y [B] float."""
    return F.mse_loss(outputs.reshape(target.shape), target, reduction="sum")


def mae(outputs: Tensor, target: Tensor, class_weights: Tensor | None = None, smoothing: float = 0.0) -> Tensor:
    """Σ |z − y|, for outputs z [B, 1] or [B] and target y [B] float."""
    return F.l1_loss(outputs.reshape(target.shape), target, reduction="sum")


def cross_entropy(
    outputs: Tensor, target: Tensor, class_weights: Tensor | None = None, smoothing: float = 0.0
) -> Tensor:
    """Σ_examples −Σ_k w_k q_k log softmax(z)_k, for logits z [B, K] and target [B] int64, or [B, K] float32.

    q is 1 for the right class, else 0; or the target itself, the classes' shares of a mixed example. Label
    smoothing ε makes it (1 − ε) q + ε/K (Szegedy et al. 2015, section 7).
    """
    return F.cross_entropy(outputs, target, class_weights, reduction="sum", label_smoothing=smoothing)


def binary_cross_entropy(
    outputs: Tensor, target: Tensor, class_weights: Tensor | None = None, smoothing: float = 0.0
) -> Tensor:
    """Σ −w₁ q log σ(z) − w₀ (1 − q) log σ(−z), for logits z [B, 1] or [B] and target [B] int64, 0 or 1.

    q is the target, or with label smoothing ε (1 − ε) target + ε/2. It equals the cross entropy of the logits (0, z).
    Of two logits [B, 2] only their difference z₁ − z₀ counts, so it is the same again.

    With several labels an example, target [B, K] of 0 and 1 and logits [B, K], an example's loss is the mean over its K
    labels, as in torch.nn.BCEWithLogitsLoss; the weight [K] of a label counts where the example has it.
    """
    if target.dim() == 2:
        q = target.to(outputs.dtype) * (1 - smoothing) + smoothing / 2
        weight = None if class_weights is None else _label_weights(target, class_weights)
        return F.binary_cross_entropy_with_logits(outputs, q, weight, reduction="sum") / target.shape[1]
    logit = (
        outputs[:, 1] - outputs[:, 0] if outputs.dim() == 2 and outputs.shape[1] == 2 else outputs.reshape(target.shape)
    )
    q = target.to(logit.dtype)
    if smoothing:
        q = q * (1 - smoothing) + smoothing / 2
    if class_weights is None:
        return F.binary_cross_entropy_with_logits(logit, q, reduction="sum")
    low, high = class_weights.unbind()
    return low * F.binary_cross_entropy_with_logits(logit, q, reduction="sum", pos_weight=high / low)


def _label_weights(target: Tensor, class_weights: Tensor) -> Tensor:
    """[B, K]: a label's weight where the example has it, else 1."""
    return torch.where(target > 0, class_weights, torch.ones_like(class_weights))


@dataclass(frozen=True, kw_only=True)
class SupervisedLoss:
    """The loss between what the network gives and the labels, ready to be minimised."""

    name: str
    formula: LossSum
    outputs: tuple[int, ...]
    """The sizes of the network's output that the formula takes."""
    class_weights: Tensor | None = None
    label_smoothing: float = 0.0

    def weight(self, batch: Batch) -> float:
        """The number of examples; with class weights the sum of w_y, as in torch.nn.CrossEntropyLoss (of Σ_k q_k w_k), or
        with several labels of each example's mean weight."""
        if self.class_weights is None:
            return batch.ids.shape[0]
        assert batch.target is not None
        if batch.target.dim() == 2:
            if self.name == "binary_cross_entropy":
                return _label_weights(batch.target, self.class_weights).mean(1).sum().item()
            return (batch.target @ self.class_weights).sum().item()
        return self.class_weights[batch.target].sum().item()

    def loss_sum(self, model: Callable[[Any], Tensor], batch: Batch, epoch: int) -> Tensor:
        """The sum of the examples' losses, a scalar.

        Raises:
            RecipeError: the network's output has another size than the target asks for.
        """
        assert batch.target is not None
        outputs = model(batch.inputs)
        size = outputs.shape[1] if outputs.dim() > 1 else 1
        if size not in self.outputs:
            raise wrong_size(size, f"{self.outputs[0]} for {self.name}")
        return self.formula(outputs, batch.target, self.class_weights, self.label_smoothing)


def class_weights(
    setting: str | dict[str, float] | None,
    classes: Sequence[str],
    count: Callable[[], Sequence[int]],
    *,
    rows: int | None = None,
) -> Tensor | None:
    """The classes' weights [K] float32, or None.

    "balanced" is N / (K n_k), with n_k of the N training examples in class k: every class weighs the same in all (King
    and Zeng 2001, "Logistic regression in rare events data"). With several labels an example it is (N − n_k) / n_k: the
    examples that have a label weigh as much in all as those that have not. Of a mapping, a class not named weighs 1.

    Args:
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
            # A label that every example has needs no weight, and cannot get 0.
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
                fix="correct the weight, or leave the class out: it then weighs 1",
            )
    return torch.tensor([float(setting.get(name, 1.0)) for name in classes])


def count_classes(prepared: Prepared, classes: Sequence[str]) -> list[int]:
    """The number of training examples of each class."""
    import pyarrow as pa
    import pyarrow.compute as pc

    target = prepared.manifest.target
    assert target is not None
    column = prepared.table("train", [target])[target]
    flat = pc.list_flatten(column) if pa.types.is_list(column.type) else column.cast(pa.string())
    values = flat.value_counts()
    counts = {entry["values"].as_py(): entry["counts"].as_py() for entry in values}
    return [counts.get(name, 0) for name in classes]
