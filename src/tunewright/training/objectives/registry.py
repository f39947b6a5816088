"""What is minimised, computed from logits: the sum of the examples' losses, and the weight to divide it by.

Sum and weight are kept apart so that gradients can be accumulated over micro-batches of any sizes: the loss of a step
is Σ sums / Σ weights, the same as for one large batch.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from tunewright.data.batches.packing import IGNORED
from tunewright.data.batches.sampler import Batch, Examples, few_lengths
from tunewright.errors import DataError, RecipeError
from tunewright.models.hub.hf_network import Transformer
from tunewright.models.language.masked_positions import WANTED
from tunewright.recipe.named import check_options, choose, parse_named, suggest
from tunewright.recipe.schema import Named, Train
from tunewright.training.objectives.chunked_cross_entropy import token_loss_sum
from tunewright.training.objectives.corruption import Vocabulary, add_noise, hidden_counts, mask, mask_tokens

if TYPE_CHECKING:
    from tunewright.data.prepared import Prepared
    from tunewright.training.loop import StepObjective

# (outputs, target [B], class weights [K] or None, label smoothing) → the sum of the losses, a scalar.
LossSum = Callable[[Tensor, Tensor, Tensor | None, float], Tensor]


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
class FromLabels:
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
            raise _wrong_size(size, f"{self.outputs[0]} for {self.name}")
        return self.formula(outputs, batch.target, self.class_weights, self.label_smoothing)


@dataclass(frozen=True, kw_only=True)
class FromInputs:
    """The error of giving back the input from a spoiled copy of it; no labels.

    An example's loss is the mean squared error of its hidden entries (`corrupt` gives a mask), or else of all.
    """

    corrupt: Callable[[Tensor, Tensor, int], tuple[Tensor, Tensor | None]]
    """(inputs [B, ...], ids [B], epoch) → the spoiled inputs, and a mask, true where the error counts."""

    def weight(self, batch: Batch) -> float:
        """The number of examples."""
        return batch.ids.shape[0]

    def loss_sum(self, model: Callable[[Any], Tensor], batch: Batch, epoch: int) -> Tensor:
        """The sum of the examples' losses, a scalar. The network's output may be flat.

        Raises:
            RecipeError: the network's output has another size than its input.
        """
        inputs = batch.pixels
        spoiled, counts = self.corrupt(inputs, batch.ids, epoch)
        outputs = model(spoiled)
        if outputs.numel() != inputs.numel():
            size = math.prod(inputs.shape[1:])
            raise _wrong_size(math.prod(outputs.shape[1:]), f"{size}, the size of the input")
        outputs = outputs.reshape(inputs.shape)
        if counts is None:
            return F.mse_loss(outputs, inputs, reduction="sum") / math.prod(inputs.shape[1:])
        # Each example has as many hidden entries as any other.
        hidden = torch.where(counts, outputs, inputs)
        return F.mse_loss(hidden, inputs, reduction="sum") / counts[0].count_nonzero()


@dataclass(frozen=True, kw_only=True)
class FromTokens:
    """The cross entropy of hidden tokens, each weighing the same; no labels."""

    seed: int
    ratio: float
    vocabulary: Vocabulary

    def weight(self, batch: Batch) -> float:
        """The number of hidden tokens."""
        return int(hidden_counts(self._ordinary(batch), self.ratio).sum())

    def loss_sum(self, model: Callable[[Any], Tensor], batch: Batch, epoch: int) -> Tensor:
        """The sum over the batch's hidden tokens, a scalar. The network gives the logits of few others, [M, V]."""
        inputs, hidden = self.hide(batch, epoch)
        wanted = _filled_up(hidden)
        target = batch.named["input_ids"].masked_fill(~hidden, IGNORED)[wanted]
        return F.cross_entropy(model({**inputs, WANTED: wanted}), target, ignore_index=IGNORED, reduction="sum")

    def hide(self, batch: Batch, epoch: int) -> tuple[dict[str, Tensor], Tensor]:
        """What the network gets, and which tokens [B, T] it is to name."""
        tokens = batch.named["input_ids"]
        spoiled, hidden = mask_tokens(
            tokens,
            self._ordinary(batch),
            batch.ids,
            epoch,
            self.seed,
            ratio=self.ratio,
            vocabulary=self.vocabulary,
        )
        return {**batch.named, "input_ids": spoiled, WANTED: hidden}, hidden

    def _ordinary(self, batch: Batch) -> Tensor:
        return ~torch.isin(batch.named["input_ids"], self.vocabulary.special) & (batch.named["attention_mask"] == 1)


def _filled_up(wanted: Tensor) -> Tensor:
    """The wanted positions and as many others as `few_lengths` asks for, so that the head meets few shapes."""
    flat = wanted.flatten()
    count = flat.sum().reshape(1)
    others = (~flat).nonzero().flatten()[: int(few_lengths(count, most=len(flat)) - count)]
    return flat.index_fill(0, others, value=True).view_as(wanted)


@dataclass(frozen=True, kw_only=True)
class FromNextTokens:
    """The cross entropy of each token given those before it, each weighing the same."""

    z_loss: float

    def weight(self, batch: Batch) -> float:
        """The number of tokens that are to be foretold."""
        assert batch.target is not None
        return int((batch.target != IGNORED).sum())

    def loss_sum(self, model: Callable[[Any], Tensor], batch: Batch, epoch: int) -> Tensor:
        """The sum over the batch's tokens, a scalar."""
        assert isinstance(model, Transformer) and batch.target is not None
        weight = model.output_weight
        if weight is None:
            logits = model(batch.inputs).flatten(0, 1)
            sums = logits.logsumexp(1)[batch.target.flatten() != IGNORED]
            loss = F.cross_entropy(logits, batch.target.flatten(), ignore_index=IGNORED, reduction="sum")
            return loss + self.z_loss * sums.square().sum()
        dtype = torch.bfloat16 if model.reduced else torch.float32
        return token_loss_sum(model.hidden(batch.named), weight, batch.target, z_loss=self.z_loss, dtype=dtype)


@dataclass(frozen=True, kw_only=True)
class Objective:
    """What the recipe asks for, before it is tied to a seed and a device."""

    name: str
    supervised: bool
    """Whether it needs labels."""
    bind: Callable[[int, torch.device], StepObjective]
    """(seed, device) → what the training loop minimises."""
    refer: Callable[[nn.Module, Examples], Tensor] | None = None
    """(network, examples) → what the network says of each example before it learns, which the loss is held against; None:
    nothing is."""


def masked(
    *,
    ratio: Annotated[float, Field(gt=0, lt=1)] = 0.5,
    patch: Annotated[int, Field(gt=0)] | None = None,
) -> Objective:
    """A masked autoencoder: give back what was hidden (He et al. 2021, section 3). Options as for `corruption.mask`."""

    def bind(seed: int, device: torch.device) -> FromInputs:
        return FromInputs(corrupt=lambda inputs, ids, epoch: mask(inputs, ids, epoch, seed, ratio=ratio, patch=patch))

    return Objective(name="masked", supervised=False, bind=bind)


def denoising(*, std: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 0.3) -> Objective:
    """A denoising autoencoder: give back the input from a noisy copy (Vincent et al. 2008, section 2.3)."""

    def bind(seed: int, device: torch.device) -> FromInputs:
        return FromInputs(corrupt=lambda inputs, ids, epoch: (add_noise(inputs, ids, epoch, seed, std=std), None))

    return Objective(name="denoising", supervised=False, bind=bind)


def masked_tokens(vocabulary: Vocabulary, *, ratio: float) -> Objective:
    """A masked language model: say which tokens were hidden (Devlin et al. 2019, section 3.1); see `mask_tokens`."""

    def bind(seed: int, device: torch.device) -> FromTokens:
        return FromTokens(seed=seed, ratio=ratio, vocabulary=vocabulary.to(device))

    return Objective(name="masked_tokens", supervised=False, bind=bind)


def next_tokens(*, z_loss: float) -> Objective:
    """A language model: say which token comes next (Bengio et al. 2003); `z_loss` as in `token_loss_sum`."""
    return Objective(name="next_tokens", supervised=False, bind=lambda seed, device: FromNextTokens(z_loss=z_loss))


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
        number_loss = FromLabels(name=name, formula=NUMBER_LOSSES[name], outputs=(1,))
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

    def bind(seed: int, device: torch.device) -> FromLabels:
        return FromLabels(
            name=name,
            formula=CLASS_LOSSES[name],
            outputs=(1, 2) if name == "binary_cross_entropy" and not several else (len(classes),),
            class_weights=weights if weights is None else weights.to(device),
            label_smoothing=train.label_smoothing,
        )

    return Objective(name=name, supervised=True, bind=bind)


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


def _wrong_size(size: int, expected: str) -> RecipeError:
    return RecipeError(
        "the network's output has another size than the objective asks for",
        place="model.head",
        found=f"{size} outputs",
        expected=expected,
        fix="end the head with {dense: auto}",
    )
