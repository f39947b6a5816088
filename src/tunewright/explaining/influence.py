"""The training rows behind an answer, and those whose labels look wrong: `tunewright explain --influence`, `--suspects`.

Both look at the network's last linear layer alone: what flows into it for each training row, and what it makes of it.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from torch import nn

from tunewright.console import Console
from tunewright.data.batches.batch import Examples
from tunewright.data.batches.sampler import in_order
from tunewright.data.source import ROW
from tunewright.errors import ArtifactError
from tunewright.inference.model import Model
from tunewright.models.core.network import Network
from tunewright.pipeline.results.provenance import provenance
from tunewright.random import permutation
from tunewright.tasks.base.task import Preprocessor
from tunewright.training.linear_probe import fit_logistic, held_out_logits, last_layer, take_features

# Training rows that are looked at, at most; others are passed over, which is said.
MOST = 5000
SHOWN = 5
# The check of an influence: so many rows are removed and the last layer is fitted again, as often with random rows.
TAKEN, LOTS, ENOUGH = 0.02, 20, 0.95
# What is added to the covariance of features, as a share of their mean square.
RIDGE = 1e-2


@dataclass(frozen=True, kw_only=True)
class Learned:
    """What a model's last layer learned from."""

    table: pa.Table
    """The training rows that are looked at, with their numbers in the source."""
    features: np.ndarray
    """[N, F]: what flows into the last layer."""
    target: np.ndarray
    """[N] class indices."""
    classes: list[str]
    passed_over: int


def learned_from(folder: Path, model: Model) -> Learned:
    """Return the training rows of the run that a saved model belongs to.

    Raises:
        ArtifactError: the folder belongs to no run, the model has no classes, or does not end with a linear layer.
    """
    target = model.preprocessor.target
    if target is None or target.classes is None or not target.one_class:
        raise ArtifactError("influence is computed for classifiers only", file=folder, expected="a model of classes")
    prepared = provenance(folder).data()
    table = prepared.table("train")
    chosen = np.sort(permutation(0, "suspects", 0, table.num_rows)[:MOST])
    passed_over = table.num_rows - len(chosen)
    table = table.take(chosen)
    encoded = target.encode(table)
    examples = model.preprocessor.inputs.examples(table, encoded)
    _, layer = last_layer(model.network, _one_batch(examples))
    return Learned(
        table=table,
        features=take_features(model.network, layer, examples),
        target=encoded.numpy(),
        classes=target.classes,
        passed_over=passed_over,
    )


def _one_batch(examples: Examples) -> Any:
    return next(iter(in_order(examples, 2))).inputs


# Labels that look wrong


def suspects(learned: Learned, seed: int = 0) -> tuple[np.ndarray, np.ndarray] | None:
    """Return the rows' positions, the most suspicious first, and for each row the class that the others say it has; None where
    nothing can be held against another row.

    Suspicious is how much likelier another class is than the row's own, to a regression that did not see the row (the
    self-confidence of Northcutt et al. 2021, section 3, as a margin).
    """
    logits = held_out_logits(learned.features, learned.target, seed=seed)
    if logits is None:
        return None
    present = np.unique(learned.target)
    place = np.searchsorted(present, learned.target)[:, None]
    own = np.take_along_axis(logits, place, 1)[:, 0]
    others = logits.copy()
    np.put_along_axis(others, place, -np.inf, 1)
    return np.argsort(own - others.max(1), kind="stable"), present[logits.argmax(1)]


def show_suspects(learned: Learned, console: Console, count: int = 20) -> list[dict[str, Any]]:
    """Print the rows whose labels look wrong, and say how many there may be."""
    looked_at = suspects(learned)
    if looked_at is None:
        console.warning("no class has two rows, so rows cannot be compared")
        return []
    order, guessed = looked_at
    against = int((guessed != learned.target).sum())
    console.info(f"{against:,} of {len(order):,} training rows have a label that other rows contradict; the first:")
    found: list[dict[str, Any]] = []
    for position in order[: min(count, against)].tolist():
        row = learned.table[ROW][position].as_py()
        label, other = learned.classes[learned.target[position]], learned.classes[guessed[position]]
        found.append({"row": row, "label": label, "looks_like": other})
        console.info(f"  row {row}: {label!r}, but it looks like {other!r}")
    if learned.passed_over:
        console.warning(f"{learned.passed_over:,} training rows were not compared: a random {MOST:,} are used")
    return found


# Rows of influence


def influence(learned: Learned, layer: nn.Linear, feature: np.ndarray, asked: int) -> np.ndarray:
    """Return [N]: how much each training row has to do with the answer `asked` to an example, in the last layer: both rows' errors
    times their features' product by the inverse of the features' covariance, ⟨p − y, p′ − y′⟩ h (HᵀH + λ)⁻¹ h′ (TRAK, Park et al.
    2023, section 3.2, of one model and without a projection; without the inverse it were TracIn, Pruthi et al. 2020)."""
    weight = layer.weight.detach().double().numpy()
    bias = layer.bias.detach().double().numpy()

    def errors(features: np.ndarray, classes: np.ndarray) -> np.ndarray:
        logits = features @ weight.T + bias
        chances = np.exp(logits - logits.max(1, keepdims=True))
        chances /= chances.sum(1, keepdims=True)
        chances[np.arange(len(classes)), classes] -= 1
        return chances

    theirs = errors(learned.features, learned.target)
    (ours,) = errors(feature[None], np.array([asked]))
    known = np.concatenate([learned.features, np.ones((len(learned.features), 1))], 1)
    covariance = known.T @ known
    covariance += RIDGE * np.trace(covariance) / len(covariance) * np.eye(len(covariance))
    return (theirs @ ours) * (known @ np.linalg.solve(covariance, np.append(feature, 1.0)))


def influence_percentile(learned: Learned, scores: np.ndarray, feature: np.ndarray, asked: int) -> float:
    """Return the check: without the rows of most influence the last layer, solved for again, is less sure of the answer than
    without as many rows by lot; the share of lots for which that holds."""
    count = max(1, round(TAKEN * len(scores)))

    def without(rows: np.ndarray) -> float:
        kept = np.setdiff1d(np.arange(len(scores)), rows)
        fit = fit_logistic(
            learned.features[kept],
            learned.target[kept],
            len(learned.classes),
            seed=0,
            weights=None,
            bias=True,
            choose=False,
        )
        logits = fit.weight @ feature + fit.bias
        return float(logits[asked] - np.logaddexp.reduce(np.delete(logits, asked)))

    ours = without(np.argsort(-scores, kind="stable")[:count])
    lots = [without(permutation(0, "influence", number, len(scores))[:count]) for number in range(LOTS)]
    return sum(ours < other for other in lots) / LOTS


def show_influence(
    learned: Learned, network: Network, preprocessor: Preprocessor, table: pa.Table, console: Console
) -> dict[str, Any]:
    """Print the training rows that speak most for the answer to one row, and most against it."""
    (said,) = Model(network, preprocessor).predict(table)
    asked = learned.classes.index(said["prediction"])
    example = preprocessor.inputs.examples(table, None)
    _, layer = last_layer(network, _one_batch(example))
    (feature,) = take_features(network, layer, example)
    scores = influence(learned, layer, feature, asked)
    share = influence_percentile(learned, scores, feature, asked)
    order = np.argsort(-scores, kind="stable")
    rows = learned.table[ROW].to_pylist()

    def named(positions: np.ndarray) -> list[dict[str, Any]]:
        return [
            {"row": rows[at], "label": learned.classes[learned.target[at]], "influence": float(scores[at])}
            for at in positions.tolist()
        ]

    found: dict[str, Any] = {"for": named(order[:SHOWN]), "against": named(order[::-1][:SHOWN]), "percentile": share}
    for side in ("for", "against"):
        shown = ", ".join(f"{entry['row']} ({entry['label']})" for entry in found[side])
        console.info(f"  training rows {side} it: {shown}")
    said_so = f"without the first {TAKEN:.0%} of them the answer is less sure than without as many random rows, in {share:.0%} of draws"
    console.info(f"  checked: {said_so}") if share >= ENOUGH else console.warning(f"NOT FAITHFUL: {said_so}")
    return found
