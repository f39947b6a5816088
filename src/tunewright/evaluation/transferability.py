"""How well features fit a target, without training a network: LogME, the H-score, LEEP, and what the nearest neighbours say.

None of these is what a fine-tune will reach: over the standard benchmarks each alone can order models worse than a fixed order
does. `commands/choose.py` shows them next to a linear probe and published facts.
"""

from __future__ import annotations

import numpy as np

# LogME's fixed point is reached when α/β changes by less than this share, or after so many rounds.
CLOSE, ROUNDS = 1e-10, 1000


def one_hot(target: np.ndarray) -> np.ndarray:
    """Turn classes [N] into [N, K] of 0 and 1, K the classes that are there."""
    return (target[:, None] == np.unique(target)).astype(np.float64)


def logme(features: np.ndarray, targets: np.ndarray) -> float:
    """Return the log of the maximal evidence of a Bayesian linear model, a row, averaged over targets (You et al. 2021, section 4).

    The weights' prior is N(0, 1/α), the noise N(0, 1/β); both maximise the evidence, by the fixed point of their section 4.2.
    The evidence has ½ D log α − ½ Σ log(α + βσ²), whose sums go over the D features: the directions that the rows do not
    span add log α − log α = 0, so both are counted over the min(N, D) singular values alone. The published code counts D once
    and min(N, D) once, and so rewards width for its own sake.

    Args:
        features: [N, D]; targets: [N, K] of 0 and 1, or numbers.
    """
    count, _ = features.shape
    left, sizes, _ = np.linalg.svd(features, full_matrices=False)
    squares = sizes**2
    along = (left.T @ targets) ** 2  # [min(N, D), K]
    beside = np.maximum((targets**2).sum(0) - along.sum(0), 0.0)
    return float(np.mean([_evidence(squares, along[:, k], beside[k], count) for k in range(targets.shape[1])]))


def _evidence(squares: np.ndarray, along: np.ndarray, beside: float, count: int) -> float:
    ratio = 1.0  # α/β
    alpha = beta = 1.0
    for _ in range(ROUNDS):
        freedom = float((squares / (squares + ratio)).sum())
        weights, errors = _sums(squares, along, beside, ratio)
        alpha, beta = freedom / max(weights, 1e-300), (count - freedom) / max(errors, 1e-300)
        before, ratio = ratio, alpha / beta
        if abs(ratio - before) <= CLOSE * before:
            break
    weights, errors = _sums(squares, along, beside, ratio)
    evidence = len(squares) * np.log(alpha) + count * np.log(beta) - np.log(alpha + beta * squares).sum()
    return float(evidence - beta * errors - alpha * weights - count * np.log(2 * np.pi)) / (2 * count)


def _sums(squares: np.ndarray, along: np.ndarray, beside: float, ratio: float) -> tuple[float, float]:
    """Return the squared length of the posterior's weights, and the squared error of its fit."""
    weights = float((squares * along / (squares + ratio) ** 2).sum())
    errors = float((along * (ratio / (squares + ratio)) ** 2).sum()) + beside
    return weights, errors


def h_score(features: np.ndarray, target: np.ndarray) -> float:
    """tr(Σ⁻¹ Σ_between): how much of the features' covariance lies between classes (Bao et al. 2019), with Σ shrunk after
    Ledoit and Wolf and Σ_between by 1 − shrinkage (Ibrahim et al. 2021, section 3.3).

    Args:
        features: [N, D]; target: [N] classes.
    """
    from sklearn.covariance import ledoit_wolf

    centred = features - features.mean(0)
    covariance, shrinkage = ledoit_wolf(centred)
    means = np.zeros_like(centred)
    for k in np.unique(target):
        means[target == k] = centred[target == k].mean(0)
    between = np.atleast_2d(np.cov(means, rowvar=False))
    return float(np.trace(np.linalg.pinv(covariance, rcond=1e-15) @ between) * (1 - shrinkage))


def leep(source: np.ndarray, target: np.ndarray) -> float:
    """Return the mean log likelihood of the target given the classes that the model already names (Nguyen et al. 2020, section 3).

    Args:
        source: [N, Z] probabilities of the model's own classes; target: [N] classes.
    """
    joint = one_hot(target).T @ source / len(target)  # [K, Z]
    given = joint / np.maximum(joint.sum(0), 1e-300)
    position = np.searchsorted(np.unique(target), target)
    return float(np.log(np.maximum((source @ given.T)[np.arange(len(target)), position], 1e-300)).mean())


def nearest(features: np.ndarray, targets: np.ndarray, k: int) -> np.ndarray:
    """Return [N, K]: the mean target of each row's k nearest other rows; of equally near ones the first.

    Args:
        features: [N, D]; targets: [N, K] of 0 and 1, or numbers.
    """
    length = (features**2).sum(1)
    distance = length[:, None] + length - 2 * features @ features.T
    np.fill_diagonal(distance, np.inf)
    return targets[np.argsort(distance, axis=1, kind="stable")[:, :k]].mean(1)
