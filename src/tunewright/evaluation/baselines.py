"""What is reached without any skill: the commonest class, the prior, the mean, and a linear model on the raw inputs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy, linear

from tunewright.evaluation.metrics import Kind
from tunewright.random import permutation

L2 = 1e-3


@dataclass(frozen=True)
class Baseline:
    """A trivial model's outputs on the test rows: logits [N, K], or predictions [N]."""

    name: str
    outputs: np.ndarray
    metrics: tuple[str, ...] | None = None
    """The names of those that it has something to say of; None: all."""


def sample_rows(count: int, seed: int, most: int) -> np.ndarray:
    """Which of `count` training rows the linear model sees, at most `most`, in order."""
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
    """The baselines of a task.

    Args:
        all_target: [N] class indices or numbers of all training rows, or [N, K] of 0 and 1.
        train_inputs, train_target: [n, …] float32 or sparse [n, F], and [n], the rows of `sample_rows`.
        test_inputs: [M, …] float32, or sparse [M, F].
        outputs: the number of classes.
        name: what the linear model is, in words.
    """
    count = test_inputs.shape[0]
    rows = f" ({len(train_target):,} training rows)" if len(train_target) < len(all_target) else ""
    name = f"{name}{rows}"
    if kind == "regression":
        values = all_target.double().numpy()
        return [
            Baseline("mean", np.full(count, values.mean())),
            Baseline("median", np.full(count, np.median(values))),
            Baseline(name, _ridge(train_inputs, train_target, test_inputs)),
        ]
    if kind == "multilabel":
        shares = np.clip(all_target.double().mean(0).numpy(), 1e-9, 1 - 1e-9)
        prior = np.log(shares / (1 - shares))
        return [
            Baseline("label prior", np.tile(prior, (count, 1))),
            Baseline(name, _one_against_rest(train_inputs, train_target.numpy(), test_inputs, prior)),
        ]
    shares = np.bincount(all_target.numpy(), minlength=outputs) / len(all_target)
    # Certainty of the commonest class is written as a large finite logit, so that the log loss stays finite.
    majority = np.where(np.arange(outputs) == shares.argmax(), 10.0, 0.0)
    return [
        Baseline("majority class", np.tile(majority, (count, 1))),
        Baseline("class prior", np.tile(np.log(np.maximum(shares, 1e-9)), (count, 1))),
        Baseline(name, _logistic(train_inputs, train_target, test_inputs, outputs)),
    ]


def token_frequencies(train: np.ndarray, hidden: np.ndarray, texts: np.ndarray, count: int, pieces: int) -> Baseline:
    """What the tokens' frequencies alone say of hidden ones: p = (n + 1) / (N + V), whatever stands around them.

    Args:
        train: [N] int64, all tokens of the training texts.
        hidden: [M] int64, the hidden tokens, and
        texts: [M] int64, the positions of the texts that they stand in.
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
    """A binary logistic regression for each label, as logits [M, K]; the prior's where the sample shows only one answer."""
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
