"""Attribute an answer to the units of its input, and check whether the attribution is faithful.

A unit is a token, a patch of an image, a column, a moment of audio, or an item chosen before. What is explained is one number f of
the answer, as a function of which units are present; the task decides what an absent unit is replaced by. Every explanation is
checked by removing units: if its ranking does no better than random rankings, it is not faithful.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from tunewright.random import permutation

# Integrated gradients: steps are doubled until the scores' sum is this close to f(all) − f(none), or there are so many.
GAP, FIRST, MOST = 0.05, 16, 1024
# Shapley sampling: orders are doubled until the standard error of each unit is within this share of the largest score.
ERROR, ORDERS, MOST_ORDERS = 0.1, 8, 256
# The check: the shares of units that are removed or kept, the number of random rankings, and the share of them that must do worse.
SHARES = (0.05, 0.1, 0.2, 0.35, 0.5)
RANKINGS, ENOUGH = 20, 0.95
CURVE = 20


@dataclass(frozen=True, kw_only=True)
class Explained:
    """One answer of a network, as a function of the units of its input."""

    units: Sequence[str]
    """U names for people."""
    value: Callable[[Tensor], Tensor]
    """Which units are present [M, U] bool → f [M]."""
    along: Callable[[Tensor], Tensor] | None
    """Positions t [S] on the straight path from the baseline (0) to the input (1) → ⟨∇f, input − baseline⟩ by unit [S, U]; None: the
    input is discrete, and there is no path."""
    what: Sequence[str]
    """What f is: a phrase, and the names for its {}."""
    absent: str
    """What an absent unit is replaced by."""
    attended: Callable[[], Tensor] | None = None
    """The attention that each unit receives [U]; None: the network has no attention."""

    @property
    def phrase(self) -> str:
        """What f is, in words."""
        return self.what[0].format(*self.what[1:])


@dataclass(frozen=True, kw_only=True)
class Check:
    """What happens when units are removed in the explanation's order, against random rankings.

    comprehensiveness: how far f falls without the first units; sufficiency: how far with them alone (DeYoung et al. 2020, section
    4), both the mean over shares of the units; deletion: the mean of f while all units are removed one by one (Petsiuk et
    al. 2018, section 4.2).
    """

    comprehensiveness: float
    sufficiency: float
    deletion: float
    percentile: dict[str, float]
    """The share of random rankings that do worse, or are the same ranking."""

    @property
    def faithful(self) -> bool:
        """Whether removing the first units does more than all but one of twenty random rankings."""
        return self.percentile["comprehensiveness"] >= ENOUGH and self.percentile["deletion"] >= ENOUGH


@dataclass(frozen=True, kw_only=True)
class Attribution:
    """Scores of units, and how they were computed."""

    method: str
    scores: np.ndarray
    """[U]: what each unit adds to f."""
    converged: bool
    facts: dict[str, Any] = field(default_factory=dict)


def integrated_gradients(explained: Explained, seed: int = 0) -> Attribution:
    """∫₀¹ ⟨∇f(nothing + t (input − nothing)), input − nothing⟩ dt by unit (Sundararajan et al. 2017, section 3), by the midpoint
    rule, with more steps until the scores add up to f(all) − f(none).

    Raises:
        ValueError: the input is discrete.
    """
    if explained.along is None:
        raise ValueError("these inputs are discrete: there is no path to integrate along")
    none, all_of_it = _ends(explained)
    wanted = all_of_it - none
    steps = FIRST
    while True:
        places = (torch.arange(steps, dtype=torch.float32) + 0.5) / steps
        scores = explained.along(places).double().mean(0).cpu().numpy()
        gap = abs(float(scores.sum()) - wanted) / max(abs(wanted), 1e-6)
        if gap <= GAP or steps >= MOST:
            break
        steps *= 2
    return Attribution(
        method="integrated gradients", scores=scores, converged=gap <= GAP, facts={"steps": steps, "gap": gap}
    )


def shapley(explained: Explained, seed: int = 0) -> Attribution:
    """Average what a unit adds over orders in which units are added (Castro et al. 2009), each order also backwards (Mitchell
    et al. 2022, section 4.2). The scores of each order add up to f(all) − f(none) exactly."""
    count = len(explained.units)
    found: list[np.ndarray] = []
    wanted = ORDERS
    while True:
        while len(found) < wanted:
            order = permutation(seed, "shapley", len(found), count)
            found.append((_added(explained, order) + _added(explained, order[::-1])) / 2)
        parts = np.stack(found)
        scores = parts.mean(0)
        error = float((parts.std(0, ddof=1) / math.sqrt(len(parts))).max())
        size = float(np.abs(scores).max())
        converged = error <= ERROR * size or error == 0
        if converged or wanted >= MOST_ORDERS:
            break
        wanted *= 2
    facts = {"orders": 2 * len(found), "standard_error": error}
    return Attribution(method="Shapley values, sampled", scores=scores, converged=converged, facts=facts)


def _added(explained: Explained, order: np.ndarray) -> np.ndarray:
    """Return what each unit adds to f [U] when units are added in this order."""
    count = len(order)
    present = torch.zeros(count + 1, count, dtype=torch.bool)
    for place, unit in enumerate(order.tolist()):
        present[place + 1 :, unit] = True
    values = explained.value(present).double().cpu().numpy()
    added = np.empty(count)
    added[order] = np.diff(values)
    return added


def ablation(explained: Explained, seed: int = 0) -> Attribution:
    """Measure how far f falls without each unit alone; redundant units all get small scores."""
    count = len(explained.units)
    present = torch.cat([torch.ones(1, count, dtype=torch.bool), ~torch.eye(count, dtype=torch.bool)])
    values = explained.value(present).double().cpu().numpy()
    return Attribution(method="ablation", scores=values[0] - values[1:], converged=True)


METHODS: dict[str, Callable[[Explained, int], Attribution]] = {
    "integrated-gradients": integrated_gradients,
    "shapley": shapley,
    "ablation": ablation,
}


def attention_rollout(explained: Explained, seed: int = 0) -> Attribution:
    """Return the attention rollout (`models/hub/attention_rollout.py`). It looks at the network and not at f, so it is the same for each class.

    Raises:
        ValueError: the network has no attention.
    """
    if explained.attended is None:
        raise ValueError("this network has no attention")
    scores = explained.attended().double().cpu().numpy()
    return Attribution(method="attention roll-out", scores=scores, converged=True, facts={"view": True})


# Views show something of the network that may be unrelated to the answer. They are checked like the methods.
VIEWS: dict[str, Callable[[Explained, int], Attribution]] = {"attention-rollout": attention_rollout}


def check(explained: Explained, scores: np.ndarray, seed: int = 0) -> Check:
    """Compare an explanation's ranking, the largest score first, with random rankings."""
    count = len(scores)
    ours = np.argsort(-scores, kind="stable")
    lots = [permutation(seed, "lots", number, count) for number in range(RANKINGS)]
    measured = [_taken_away(explained, order) for order in (ours, *lots)]
    own = measured[0]
    sizes = sorted({_size(share, count) for share in SHARES})
    same = [all(set(ours[:size].tolist()) == set(order[:size].tolist()) for size in sizes) for order in lots]
    signs = {"comprehensiveness": 1, "sufficiency": -1, "deletion": -1}
    percentile = {
        name: sum(alike or sign * (own[name] - other[name]) > 1e-7 for alike, other in zip(same, measured[1:]))
        / RANKINGS
        for name, sign in signs.items()
    }
    return Check(**own, percentile=percentile)


def _taken_away(explained: Explained, order: np.ndarray) -> dict[str, float]:
    count = len(order)
    place = torch.from_numpy(np.argsort(order).copy())
    sizes = [_size(share, count) for share in SHARES]
    curve = np.unique(np.linspace(0, count, min(CURVE, count) + 1).round().astype(int)).tolist()
    rows = [
        place >= 0,
        *(place >= size for size in sizes),
        *(place < size for size in sizes),
        *(place >= k for k in curve),
    ]
    values = explained.value(torch.stack(rows)).double().cpu().numpy()
    without, alone = values[1 : 1 + len(sizes)], values[1 + len(sizes) : 1 + 2 * len(sizes)]
    return {
        "comprehensiveness": float((values[0] - without).mean()),
        "sufficiency": float((values[0] - alone).mean()),
        "deletion": float(values[1 + 2 * len(sizes) :].mean()),
    }


def _size(share: float, count: int) -> int:
    return max(1, math.ceil(share * count))


def _ends(explained: Explained) -> tuple[float, float]:
    count = len(explained.units)
    values = explained.value(torch.stack([torch.zeros(count, dtype=torch.bool), torch.ones(count, dtype=torch.bool)]))
    return float(values[0]), float(values[1])
