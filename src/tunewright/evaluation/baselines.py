"""Baselines: what the most frequent class, the prior or the mean reach, and a linear model on the raw inputs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy, linear

from tunewright.evaluation.metrics import Kind
from tunewright.evaluation.metrics.classification import CLASSES, LABELS
from tunewright.evaluation.metrics.regression import NUMBERS
from tunewright.random import permutation

L2 = 1e-3


@dataclass(frozen=True)
class Baseline:
    """A trivial model's outputs on the test rows: logits [N, K], or predictions [N]."""

    name: str
    outputs: np.ndarray
    metrics: tuple[str, ...] | None = None
    """The names of those that it can be measured by; None: all."""
    training_rows: int | None = None
    """How many rows it learned from, where these are not all."""


def sample_rows(count: int, seed: int, most: int) -> np.ndarray:
    """Choose at most `most` of `count` training rows for the linear model, in order."""
    return np.sort(permutation(seed, "baseline", 0, count)[:most])


def baselines(
    kind: Kind,
    all_target: Tensor,
    train_inputs: Any,
    train_target: Tensor,
    test_inputs: Any,
    *,
    outputs: int,
    name: str,
) -> list[Baseline]:
    """Return the baselines of a target: trivial ones, and a linear model last.

    Args:
        all_target: [N] class indices or numbers of all training rows, or [N, K] of 0 and 1.
        train_inputs, train_target: [n, …] float32 or sparse [n, F], and [n], the rows of `sample_rows`.
        test_inputs: [M, …] float32, or sparse [M, F].
        outputs: the number of classes.
        name: what the linear model is, in words.
    """
    data = _Data(all_target, train_inputs, train_target, test_inputs, outputs)
    trivial, linear_outputs = _OF_KIND[kind](data)
    rows = len(train_target) if len(train_target) < len(all_target) else None
    return [*trivial, Baseline(name, linear_outputs, training_rows=rows)]


@dataclass(frozen=True)
class _Data:
    """The arguments of `baselines`."""

    all_target: Tensor
    train_inputs: Any
    train_target: Tensor
    test_inputs: Any
    outputs: int

    @property
    def count(self) -> int:
        """How many test rows there are."""
        return self.test_inputs.shape[0]


# The trivial baselines, and what the linear model gives.
_Found = tuple[list[Baseline], np.ndarray]


def _of_numbers(data: _Data) -> _Found:
    values = data.all_target.double().numpy()
    trivial = [
        Baseline("mean", np.full(data.count, values.mean())),
        Baseline("median", np.full(data.count, np.median(values))),
    ]
    return trivial, _ridge(data.train_inputs, data.train_target, data.test_inputs)


def _of_labels(data: _Data) -> _Found:
    shares = np.clip(data.all_target.double().mean(0).numpy(), 1e-9, 1 - 1e-9)
    prior = np.log(shares / (1 - shares))
    trivial = [Baseline("label prior", np.tile(prior, (data.count, 1)))]
    return trivial, _one_against_rest(data.train_inputs, data.train_target.numpy(), data.test_inputs, prior)


def _of_classes(data: _Data) -> _Found:
    outputs = data.outputs
    shares = np.bincount(data.all_target.numpy(), minlength=outputs) / len(data.all_target)
    # Certainty of the commonest class is written as a large finite logit, so that the log loss stays finite.
    majority = np.where(np.arange(outputs) == shares.argmax(), 10.0, 0.0)
    trivial = [
        Baseline("majority class", np.tile(majority, (data.count, 1))),
        Baseline("class prior", np.tile(np.log(np.maximum(shares, 1e-9)), (data.count, 1))),
    ]
    return trivial, _logistic(data.train_inputs, data.train_target, data.test_inputs, outputs)


_OF_KIND: dict[Kind, Callable[[_Data], _Found]] = {CLASSES: _of_classes, LABELS: _of_labels, NUMBERS: _of_numbers}


def token_frequencies(train: np.ndarray, hidden: np.ndarray, texts: np.ndarray, count: int, pieces: int) -> Baseline:
    """Predict masked tokens by their frequencies alone: p = (n + 1) / (N + V).

    Args:
        train: [N] int64, all tokens of the training texts.
        hidden: [M] int64, the masked tokens, and
        texts: [M] int64, the positions of their texts.
        count: the number of texts.
        pieces: V, the size of the vocabulary.
    """
    counts = np.bincount(train, minlength=pieces).astype(np.float64)
    loss = -np.log((counts[hidden] + 1) / (len(train) + pieces))
    right = (hidden == counts.argmax()).astype(np.float64)
    outputs = [np.bincount(texts, values, minlength=count) for values in (loss, right)]
    return Baseline("token frequencies", np.stack(outputs, axis=1))


def _standardised(train: Tensor, test: Tensor) -> tuple[Tensor, Tensor]:
    mean, std = train.mean(0), train.std(0, unbiased=False)
    std = torch.where(std > 0, std, torch.ones_like(std))
    return (train - mean) / std, (test - mean) / std


def _logistic(train: Any, target: Tensor, test: Any, classes: int) -> np.ndarray:
    """Multinomial logistic regression by L-BFGS, mean cross entropy + L2 ‖W‖², as logits on the test rows."""
    if not isinstance(train, Tensor):
        return _sparse_logistic(train, target, test, classes)
    from scipy.optimize import minimize

    train, test = _standardised(train.flatten(1), test.flatten(1))
    width = train.shape[1]

    def split(flat: np.ndarray) -> tuple[Tensor, Tensor]:
        values = torch.from_numpy(flat.astype(np.float32))
        return values[:-classes].reshape(classes, width), values[-classes:]

    def loss_and_gradient(flat: np.ndarray) -> tuple[float, np.ndarray]:
        weight, bias = split(flat)
        loss = cross_entropy(linear(train, weight.requires_grad_(), bias.requires_grad_()), target)
        loss = loss + L2 * weight.square().sum()
        gradients = torch.autograd.grad(loss, [weight, bias])
        return loss.item(), torch.cat([gradient.reshape(-1) for gradient in gradients]).double().numpy()

    start = np.zeros(classes * (width + 1))
    found = minimize(loss_and_gradient, start, jac=True, method="L-BFGS-B", options={"maxiter": 60})
    return linear(test, *split(found.x)).double().numpy()


def _sparse_logistic(train: Any, target: Tensor, test: Any, classes: int) -> np.ndarray:
    """scikit-learn's logistic regression with its own default strength, as logits on the test rows."""
    from sklearn.linear_model import LogisticRegression

    model = LogisticRegression(C=10.0, max_iter=200).fit(train, target.numpy())
    # Classes that the sample lacks get a logit far below all others.
    logits = np.full((test.shape[0], classes), -30.0)
    logits[:, model.classes_] = np.log(np.maximum(model.predict_proba(test), 1e-12))
    return logits


def _one_against_rest(train: Any, target: np.ndarray, test: Any, prior: np.ndarray) -> np.ndarray:
    """Return a binary logistic regression for each label, as logits [M, K]; the prior's where the sample shows only one answer."""
    from sklearn.linear_model import LogisticRegression

    if isinstance(train, Tensor):
        train, test = (values.numpy() for values in _standardised(train.flatten(1), test.flatten(1)))
    logits = np.tile(prior, (test.shape[0], 1))
    for k in range(target.shape[1]):
        if 0 < target[:, k].sum() < len(target):
            model = LogisticRegression(C=10.0, solver="liblinear", random_state=0).fit(train, target[:, k])
            logits[:, k] = model.decision_function(test)
    return logits


def _ridge(train: Any, target: Tensor, test: Any) -> np.ndarray:
    """Ridge regression: (XᵀX / N + L2 I)⁻¹ Xᵀy / N; in closed form unless the inputs are sparse."""
    if not isinstance(train, Tensor):
        from sklearn.linear_model import Ridge

        return Ridge(alpha=1.0, solver="sparse_cg").fit(train, target.double().numpy()).predict(test)
    train, test = _standardised(train.flatten(1).double(), test.flatten(1).double())
    centre = target.double().mean()
    count, width = train.shape
    gram = train.T @ train / count + L2 * torch.eye(width, dtype=torch.float64)
    weight = torch.linalg.solve(gram, train.T @ (target.double() - centre) / count)
    return (test @ weight + centre).numpy()
