"""Define the losses of labelled examples."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float, Int, Real
from torch import Tensor
from torch.nn import functional as F

from tunewright.data.batches.batch import Batch, Inputs
from tunewright.errors import RecipeError
from tunewright.training.objectives.base import LabelSettings, LossSum, NamedObjective, Objective, Scalar, wrong_size
from tunewright.training.objectives.class_weights import class_weights, count_classes

Numbers = Real[Tensor, " batch"]
Outputs = Float[Tensor, "batch 1"] | Float[Tensor, " batch"]
Weights = Float[Tensor, " classes"]


def mse(outputs: Outputs, target: Numbers, class_weights: Weights | None = None, smoothing: float = 0.0) -> Scalar:
    """Compute Σ (z − y)² for outputs z and targets y."""
    return F.mse_loss(outputs.reshape(target.shape), target, reduction="sum")


def mae(outputs: Outputs, target: Numbers, class_weights: Weights | None = None, smoothing: float = 0.0) -> Scalar:
    """Compute Σ |z − y| for outputs z and targets y."""
    return F.l1_loss(outputs.reshape(target.shape), target, reduction="sum")


def cross_entropy(
    outputs: Float[Tensor, "batch classes"],
    target: Int[Tensor, " batch"] | Float[Tensor, "batch classes"],
    class_weights: Weights | None = None,
    smoothing: float = 0.0,
) -> Scalar:
    """Compute Σ_examples −Σ_k w_k q_k log softmax(z)_k for logits z.

    q is 1 for the target class, else 0; or the target itself, the classes' shares of a mixed example. Label
    smoothing ε makes it (1 − ε) q + ε/K (Szegedy et al. 2015, section 7).
    """
    return F.cross_entropy(outputs, target, class_weights, reduction="sum", label_smoothing=smoothing)


def binary_cross_entropy(
    outputs: Outputs | Float[Tensor, "batch classes"],
    target: Real[Tensor, " batch"] | Real[Tensor, "batch classes"],
    class_weights: Float[Tensor, " _"] | None = None,
    smoothing: float = 0.0,
) -> Scalar:
    """Compute Σ −w₁ q log σ(z) − w₀ (1 − q) log σ(−z) for logits z and targets 0 or 1.

    q is the target, or with label smoothing ε (1 − ε) target + ε/2. It equals the cross entropy of the logits (0, z).
    Of two logits only their difference z₁ − z₀ counts, so the result is the same.

    With several labels per example, the target [batch, classes] is 0 and 1, and an example's loss is the mean over its labels, as
    in torch.nn.BCEWithLogitsLoss; the weight of a label counts where the example has it.
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


def _label_weights(target: Real[Tensor, "batch classes"], class_weights: Weights) -> Float[Tensor, "batch classes"]:
    """Return a label's weight where the example has it, else 1."""
    return torch.where(target > 0, class_weights, torch.ones_like(class_weights))


@dataclass(frozen=True, kw_only=True)
class SupervisedLoss:
    """Compute the loss between the network's outputs and the labels."""

    name: str
    formula: LossSum
    outputs: tuple[int, ...]
    """The sizes of the network's output that the formula takes."""
    multilabel: bool = False
    """Whether an example has several classes."""
    class_weights: Weights | None = None
    label_smoothing: float = 0.0

    def weight(self, batch: Batch) -> float:
        """Return the number of examples; with class weights the sum of w_y, as in torch.nn.CrossEntropyLoss (of Σ_k q_k w_k), or
        with several labels of each example's mean weight."""
        if self.class_weights is None:
            return batch.ids.shape[0]
        assert batch.target is not None
        if self.multilabel:
            return _label_weights(batch.target, self.class_weights).mean(1).sum().item()
        if batch.target.dim() == 2:
            return (batch.target @ self.class_weights).sum().item()
        return self.class_weights[batch.target].sum().item()

    def loss_sum(self, model: Callable[[Inputs], Tensor], batch: Batch, epoch: int) -> Scalar:
        """Return the sum of the examples' losses.

        Raises:
            RecipeError: the network's output does not fit the target.
        """
        assert batch.target is not None
        outputs = model(batch.inputs)
        size = outputs.shape[1] if outputs.dim() > 1 else 1
        if size not in self.outputs:
            raise wrong_size(size, f"{self.outputs[0]} for {self.name}")
        return self.formula(outputs, batch.target, self.class_weights, self.label_smoothing)


def _of_numbers(name: str, formula: LossSum) -> NamedObjective:
    """List a loss of numbers, which has no options."""
    loss = SupervisedLoss(name=name, formula=formula, outputs=(1,))
    objective = Objective(name=name, supervised=True, bind=lambda seed, device: loss)

    def build(labels: LabelSettings) -> Objective:
        return objective

    return NamedObjective(name=name, target="numbers", build=build)


def _of_classes(loss: SupervisedLoss, labels: LabelSettings, *, takes_soft_targets: bool = False) -> Objective:
    """Build an objective with the recipe's class weights and label smoothing."""
    assert labels.classes is not None
    classes, prepared = labels.classes, labels.prepared
    rows = prepared.rows("train") if labels.multilabel else None
    weights = class_weights(labels.train.class_weights, classes, lambda: count_classes(prepared, classes), rows=rows)

    def bind(seed: int, device: torch.device) -> SupervisedLoss:
        on_device = weights if weights is None else weights.to(device)
        return replace(loss, class_weights=on_device, label_smoothing=labels.train.label_smoothing)

    return Objective(name=loss.name, supervised=True, bind=bind, takes_soft_targets=takes_soft_targets)


def _build_cross_entropy(labels: LabelSettings) -> Objective:
    """Build the cross entropy.

    Raises:
        RecipeError: an example has several classes.
    """
    if labels.multilabel:
        raise RecipeError(
            f"{CROSS_ENTROPY.name} is for one class a row, the target has several",
            place="train.objective",
            found=CROSS_ENTROPY.name,
            expected=BINARY_CROSS_ENTROPY.name,
            fix="remove train.objective",
        )
    assert labels.classes is not None
    loss = SupervisedLoss(name=CROSS_ENTROPY.name, formula=cross_entropy, outputs=(len(labels.classes),))
    return _of_classes(loss, labels, takes_soft_targets=True)


def _build_binary_cross_entropy(labels: LabelSettings) -> Objective:
    """Build the binary cross entropy.

    Raises:
        RecipeError: there are not two classes, and an example has one of them.
    """
    assert labels.classes is not None
    name, count = BINARY_CROSS_ENTROPY.name, len(labels.classes)
    if labels.multilabel:
        loss = SupervisedLoss(name=name, formula=binary_cross_entropy, outputs=(count,), multilabel=True)
        return _of_classes(loss, labels)
    if count != 2:
        raise RecipeError(
            f"{name} is for two classes",
            place="train.objective",
            found=f"{count} classes",
            expected="two classes",
            fix=f"write train.objective: {CROSS_ENTROPY.name}",
        )
    return _of_classes(SupervisedLoss(name=name, formula=binary_cross_entropy, outputs=(1, 2)), labels)


MSE = _of_numbers(mse.__name__, mse)
MAE = _of_numbers(mae.__name__, mae)
CROSS_ENTROPY = NamedObjective(name="cross_entropy", target="classes", build=_build_cross_entropy)
BINARY_CROSS_ENTROPY = NamedObjective(name="binary_cross_entropy", target="classes", build=_build_binary_cross_entropy)
