"""Few examples: features from a network that stays as it is, and a logistic regression on them as its last layer.

With a handful of examples a class, a gradient through millions of weights finds little that holds for other examples. A
regularised logistic regression on the pretrained network's features does, and it has one number to be chosen, which
cross-validation can. Its solution is that of the network's last linear layer, so it is written there.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor, nn

from tunewright.data.batches.batch import Examples, Inputs
from tunewright.data.batches.sampler import of_all
from tunewright.errors import RecipeError
from tunewright.models.core.network import Network, evaluating
from tunewright.models.core.tap import Tap
from tunewright.random import permutation

# C of scikit-learn, the inverse of the penalty on the weights, for features whose root mean square is 1.
STRENGTHS = tuple(10.0**power for power in range(-4, 4))
# Where there is nothing to choose it by: scikit-learn's own.
USUAL = 1.0
FOLDS = 5
BATCH = 256
# The logit of a class without a training example: it is never predicted.
NEVER = -30.0


@dataclass(frozen=True, kw_only=True)
class Strength:
    """How well a strength did on rows that the fit had not seen."""

    C: float
    log_loss: float
    accuracy: float


@dataclass(frozen=True, kw_only=True)
class Fit:
    """A logistic regression, and how its strength was chosen."""

    weight: np.ndarray
    """[K, F]"""
    bias: np.ndarray
    """[K]"""
    C: float
    folds: int
    """0: nothing could be cross-validated."""
    scores: list[Strength] = field(default_factory=list)


def last_layer(network: Network, inputs: Inputs) -> tuple[str, nn.Linear]:
    """Return the linear layer whose output is the network's, and its name in the network.

    Raises:
        RecipeError: the network ends with something else.
    """
    seen: dict[str, tuple[nn.Linear, Tensor]] = {}
    linear = [(name, module) for name, module in network.named_modules() if isinstance(module, nn.Linear)]
    hooks = [
        module.register_forward_hook(lambda m, _, output, name=name: seen.update({name: (m, output)}))
        for name, module in linear
    ]
    try:
        with evaluating(network), torch.no_grad():
            outputs = network(inputs)
    finally:
        for hook in hooks:
            hook.remove()
    for name, (module, output) in reversed(seen.items()):
        if output.shape == outputs.shape and torch.equal(output.float(), outputs):
            return name, module
    raise RecipeError(
        "the network does not end with a linear layer, which a logistic regression could be written into",
        place="tune.method",
        expected="a head that ends with {dense: auto}",
        fix="tune: {method: gradient}",
    )


def take_features(network: Network, layer: nn.Linear, examples: Examples) -> np.ndarray:
    """Return [N, F] float64: what flows into `layer` for each example, in the examples' order; the network in evaluation mode."""
    with evaluating(network), torch.inference_mode(), Tap(layer) as tap:

        def flowing(inputs: Inputs) -> list[Tensor]:
            network(inputs)
            return [tap.taken().float().cpu()]

        (found,) = of_all(examples, BATCH, flowing)
    return found.double().numpy()


def fit_logistic(
    features: np.ndarray,
    target: np.ndarray,
    classes: int,
    *,
    seed: int,
    weights: np.ndarray | None,
    bias: bool,
    choose: bool = True,
) -> Fit:
    """Multinomial logistic regression whose strength is chosen by stratified cross-validation.

    A class with one example is in the training part of every fold, and is never scored. The strength with the
    smallest log loss is taken, of equal ones the one that penalises most.

    Args:
        features: [N, F].
        target: [N] class indices.
        weights: [K] of the classes, as in `train.class_weights`.
        bias: whether the layer that it is for has one.
        choose: False takes the usual strength: features that were made with all labels known judge no strength.
    """
    from threadpoolctl import threadpool_limits

    rows = None if weights is None else weights[target]
    # With one thread the sums are always made in the same order.
    with threadpool_limits(1):
        parts = _folds(target, seed) if choose else []
        scores = [
            _strength(_held_out(features, target, rows, parts, C, bias), target, parts, C)
            for C in (STRENGTHS if parts else ())
        ]
        best = min(scores, key=lambda score: score.log_loss).C if scores else USUAL
        weight, offset = _solve(features, target, rows, best, bias)
    full, offsets = np.zeros((classes, features.shape[1])), np.full(classes, NEVER)
    present = np.unique(target)
    full[present], offsets[present] = weight, offset
    return Fit(weight=full, bias=offsets, C=best, folds=len(parts), scores=scores)


def write_layer(layer: nn.Linear, fit: Fit) -> None:
    """Put the regression's weights and bias into the layer."""
    with torch.no_grad():
        layer.weight.copy_(torch.from_numpy(fit.weight))
        if layer.bias is not None:  # pyright: ignore[reportUnnecessaryComparison]
            layer.bias.copy_(torch.from_numpy(fit.bias))


def _folds(target: np.ndarray, seed: int) -> list[tuple[np.ndarray, np.ndarray]]:
    """Return rows to fit and rows to score of each fold; none where no class, or only one, has two examples."""
    counts = np.bincount(target)
    several = np.flatnonzero(counts[target] > 1)
    if len(np.unique(target[several])) < 2:
        return []
    folds = min(FOLDS, int(counts[counts > 1].min()))
    # Each class's rows in random order go to the folds in turn.
    order = several[permutation(seed, "folds", 0, len(several))]
    order = order[np.argsort(target[order], kind="stable")]
    fold = np.full(len(target), -1)
    fold[order] = np.arange(len(order)) % folds
    return [(np.flatnonzero(fold != k), np.flatnonzero(fold == k)) for k in range(folds)]


def held_out_logits(features: np.ndarray, target: np.ndarray, *, seed: int) -> np.ndarray | None:
    """Return [N, k]: what a logistic regression on the other rows says of each row, by cross-validation over the k classes that are
    there; None where nothing can be cross-validated. A row whose class has no other one says nothing: all its logits are 0.

    The strength is the one that predicts best on the same rows: a choice among eight, and so a little too good.
    """
    from threadpoolctl import threadpool_limits

    with threadpool_limits(1):
        parts = _folds(target, seed)
        if not parts:
            return None
        found = [_held_out(features, target, None, parts, C, True) for C in STRENGTHS]
    losses = [_strength(logits, target, parts, C).log_loss for logits, C in zip(found, STRENGTHS)]
    return found[int(np.argmin(losses))]


def held_out_numbers(features: np.ndarray, targets: np.ndarray, *, seed: int) -> np.ndarray:
    """Return [N, K]: what a ridge regression on the other rows says of each row's numbers [N, K], by cross-validation; its strength
    is chosen on the rows that it is fitted to (generalised cross-validation)."""
    from sklearn.linear_model import RidgeCV

    fold = np.empty(len(features), dtype=np.int64)
    fold[permutation(seed, "folds", 0, len(features))] = np.arange(len(features)) % FOLDS
    found = np.zeros(targets.shape)
    for k in np.unique(fold):
        model = RidgeCV(alphas=[1 / C for C in STRENGTHS]).fit(features[fold != k], targets[fold != k])
        found[fold == k] = np.asarray(model.predict(features[fold == k])).reshape(-1, targets.shape[1])
    return found


def _held_out(
    features: np.ndarray,
    target: np.ndarray,
    rows: np.ndarray | None,
    parts: list[tuple[np.ndarray, np.ndarray]],
    C: float,
    bias: bool,
) -> np.ndarray:
    """Return [N, k]: the logits of each part's held rows, by what was fitted to the others; each fit knows all classes."""
    found = np.zeros((len(target), len(np.unique(target))))
    for fitted, held in parts:
        weight, offset = _solve(features[fitted], target[fitted], None if rows is None else rows[fitted], C, bias)
        found[held] = features[held] @ weight.T + offset
    return found


def _strength(logits: np.ndarray, target: np.ndarray, parts: list[tuple[np.ndarray, np.ndarray]], C: float) -> Strength:
    held = np.concatenate([rows for _, rows in parts])
    logits, position = logits[held], np.searchsorted(np.unique(target), target[held])
    logits = logits - logits.max(1, keepdims=True)
    log_chances = logits - np.log(np.exp(logits).sum(1, keepdims=True))
    losses = -log_chances[np.arange(len(held)), position]
    return Strength(C=C, log_loss=float(losses.mean()), accuracy=float((logits.argmax(1) == position).mean()))


def _solve(
    features: np.ndarray, target: np.ndarray, rows: np.ndarray | None, C: float, bias: bool
) -> tuple[np.ndarray, np.ndarray]:
    """Weights [k, F] and offsets [k] for the k classes that are there, on the features as they are.

    The fit is made on centred features that are divided by one number, their root mean square: from few examples the
    deviation of a single feature cannot be told. Both are undone in the result.
    """
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression

    centre = features.mean(0) if bias else np.zeros(features.shape[1])
    size = float(np.sqrt(np.square(features - centre).mean())) or 1.0
    model = LogisticRegression(C=C, fit_intercept=bias, max_iter=2000, tol=1e-6)
    with warnings.catch_warnings():
        # Hardly penalised weights of classes that can be separated have no end to run to.
        warnings.simplefilter("ignore", ConvergenceWarning)
        model.fit((features - centre) / size, target, sample_weight=rows)
    weight = np.asarray(model.coef_) / size
    offset = np.broadcast_to(np.asarray(model.intercept_), len(weight)) - weight @ centre
    if len(weight) == 1:  # two classes: one logit z, which is the softmax of (−z/2, z/2)
        weight, offset = np.concatenate([-weight, weight]) / 2, np.concatenate([-offset, offset]) / 2
    return weight, offset
