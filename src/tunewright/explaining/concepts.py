"""`tunewright explain --concept`: can a concept be read off the network's blocks, and do its answers hang on it?

A view, by concept activation vectors (Kim et al. 2018, section 3): rows that share something are separated from random training rows,
block by block; the direction that tells them is followed, and the answers' log odds rise or fall. The same is done with rows by
lot in the concept's place: what does no better than these says nothing.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa

from tunewright.console import Console, silent
from tunewright.data.batches.batch import Examples
from tunewright.data.batches.sampler import of_all
from tunewright.data.manifest import Rejects
from tunewright.errors import ArtifactError, DataError, RecipeError
from tunewright.evaluation.metrics.classification import ROC_AUC
from tunewright.inference.model import Model, load_model, skipped_lines
from tunewright.inference.read_input import read_input
from tunewright.models.core.layer_features import layer_means, layer_slopes, weighted_blocks
from tunewright.models.core.network import evaluating
from tunewright.pipeline.results.provenance import provenance
from tunewright.random import mix, permutation
from tunewright.training.linear_probe import fit_logistic, held_out_logits

# Rows of a concept: fewer say nothing, more are passed over.
FEWEST, MOST = 10, 500
# Rows of each class whose answers are followed, and classes at most.
ROWS, CLASSES = 50, 20
LOTS, ENOUGH = 20, 0.95
# Training rows that lots are drawn from.
POOL = 2000
BATCH = 32


@dataclass(frozen=True, kw_only=True)
class Leaning:
    """How the answers of one class hang on a concept."""

    answer: str
    effect: float
    """The mean change of the log odds, or of the number, when the block's output moves along the concept by one of its standard
    deviations."""
    rising: float
    """The share of the class's rows where they rise."""
    percentile: float
    """The share of lots whose effect is smaller."""

    @property
    def real(self) -> bool:
        return self.percentile >= ENOUGH


@dataclass(frozen=True, kw_only=True)
class Concept:
    """What was found about a concept at one block."""

    concept: str
    rows: int
    block: str
    auc: float
    """How well rows with the concept are told from others, by cross-validation."""
    auc_at_random: float
    """The mean of the same for random rows: 0.5 but for chance."""
    leanings: list[Leaning]


def concepts(folder: Path, named: Sequence[str], *, seed: int = 0, console: Console) -> list[Concept]:
    """Measure each concept at each block of a model that belongs to a run.

    Args:
        named: NAME=FILE, rows that share what is called NAME.

    Raises:
        UserError: a file is wrong or has too few rows, or the model's blocks or answers cannot be looked at so.
    """
    model = load_model(folder)
    target, blocks = model.preprocessor.column_target, weighted_blocks(model.network)
    if target is None or not blocks:
        raise ArtifactError(
            "concepts are measured in models of classes or numbers",
            file=folder,
            found=model.preprocessor.task.name if blocks else "no block with weights before the head",
            expected="a classifier or regression with a backbone",
        )
    given = [_given(entry, model) for entry in named]
    prepared = provenance(folder).data()
    train = prepared.table("train")
    followed = prepared.table(prepared.measured_split)
    slopes = list(_slopes(model, followed, seed))
    pool = train.take(np.sort(permutation(seed, "concept", 0, train.num_rows)[:POOL]))
    others = _means(model, model.preprocessor.inputs.examples(pool, None))
    found: list[Concept] = []
    for name, examples in given:
        theirs = _means(model, examples)
        each = [
            _at_block(name, block.title, theirs[at], others[at], [(said, part[at]) for said, part in slopes], seed)
            for at, block in enumerate(blocks)
        ]
        _show(each, console)
        found += each
    return found


def _given(entry: str, model: Model) -> tuple[str, Examples]:
    """Return a concept's name and its rows."""
    name, equals, file = entry.partition("=")
    if not (name and equals and file):
        raise RecipeError("a concept has a name and a file", place="--concept", found=entry, expected="NAME=FILE")
    rejects = Rejects()
    piece = next(read_input(file, model.preprocessor, rejects), None)
    if piece is None or piece.table.num_rows < FEWEST:
        raise DataError(
            "too few rows for a concept", file=file, found=piece.table.num_rows if piece else 0, expected=f"{FEWEST} or more",
            fix="; ".join(skipped_lines(rejects)) or "add rows that share it",
        )  # fmt: skip
    return name, piece.inputs.examples(piece.table.slice(0, MOST), None)


def _means(model: Model, examples: Examples) -> list[np.ndarray]:
    """Return [N, F] for each block, in the examples' order."""
    with evaluating(model.network):
        found = of_all(examples, BATCH, lambda inputs: layer_means(model.network, inputs))
    return [block.double().numpy() for block in found]


def _slopes(model: Model, table: pa.Table, seed: int) -> Iterator[tuple[str, list[np.ndarray]]]:
    """For each class its name, and for each block how the log odds rise with the block's output [rows, F], on rows of the class."""
    target = model.preprocessor.column_target
    assert target is not None
    order = permutation(seed, "followed", 0, table.num_rows)
    truth = target.truth(target.encode(table))[order]
    for name, there, f in target.followed(truth, CLASSES):
        rows = order[there][:ROWS]
        if not len(rows):
            continue
        examples = model.preprocessor.inputs.examples(table.take(np.sort(rows)), None)
        slopes = of_all(examples, BATCH, lambda inputs: layer_slopes(model.network, inputs, f))  # noqa: B023
        yield name, [block.double().numpy() for block in slopes]


def _at_block(
    name: str,
    block: str,
    with_it: np.ndarray,
    pool: np.ndarray,
    slopes: Sequence[tuple[str, np.ndarray]],
    seed: int,
) -> Concept:
    count = len(with_it)
    if len(pool) < 2 * count:
        raise DataError(
            "there are too few training rows to compare the concept with",
            found=len(pool), expected=f"{2 * count} or more", fix="give fewer rows of the concept",
        )  # fmt: skip

    def lot(number: int) -> tuple[np.ndarray, np.ndarray]:
        drawn = pool[permutation(seed, "lot", number, len(pool))[: 2 * count]]
        return drawn[:count], drawn[count:]

    _, random_rows = lot(LOTS)
    lots = [lot(number) for number in range(LOTS)]
    ours = _direction(with_it, random_rows, seed)
    others = [_direction(a, b, seed) for a, b in lots]
    leanings: list[Leaning] = []
    for said, slope in slopes:
        rises = slope @ ours
        by_lot = [abs(float((slope @ other).mean())) for other in others]
        effect = float(rises.mean())
        smaller = sum(abs(effect) > other for other in by_lot) / len(by_lot)
        leanings.append(Leaning(answer=said, effect=effect, rising=float((rises > 0).mean()), percentile=smaller))
    by_lot = float(np.mean([_auc(a, b, seed) for a, b in lots[:5]]))
    auc = _auc(with_it, random_rows, seed)
    return Concept(concept=name, rows=count, block=block, auc=auc, auc_at_random=by_lot, leanings=leanings)


def _told_apart(a: np.ndarray, b: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    return np.concatenate([b, a]), np.repeat([0, 1], [len(b), len(a)])


def _direction(a: np.ndarray, b: np.ndarray, seed: int) -> np.ndarray:
    """Return [F]: from the rows b towards the rows a, as long as the standard deviation of b along it."""
    fit = fit_logistic(*_told_apart(a, b), 2, seed=seed, weights=None, bias=True, choose=False)
    along = fit.weight[1] - fit.weight[0]
    unit = along / (np.linalg.norm(along) or 1.0)
    return unit * float((b @ unit).std())


def _auc(a: np.ndarray, b: np.ndarray, seed: int) -> float:
    features, target = _told_apart(a, b)
    logits = held_out_logits(features, target, seed=mix(seed, "concept") % 2**32)
    if logits is None:
        return float("nan")
    return ROC_AUC.value(logits, target)


def _show(found: Sequence[Concept], console: Console) -> None:
    """Where it can be read, and at the block where it is read best what the answers make of it."""
    best = max(reversed(found), key=lambda one: one.auc)
    told = ", ".join(f"{one.block} {one.auc:.2f}" for one in found)
    console.info(
        f"{best.concept} ({best.rows} rows), a view: separated from training rows with an AUC of {told}; random rows {best.auc_at_random:.2f}"
    )
    for one in sorted(best.leanings, key=lambda one: -abs(one.effect)):
        said = f"  {one.answer}: {one.effect:+.3g} along it at {best.block}, rises in {one.rising:.0%} of the rows"
        lots = f"more than {one.percentile:.0%} of lots"
        console.info(f"{said}, {lots}") if one.real else console.info(f"{said}: no more than random rows ({lots})")


def print_concepts(folder: Path, named: Sequence[str], *, as_json: bool, console: Console | None = None) -> None:
    """The concepts in words, or an object a line."""
    for one in concepts(folder, named, console=silent() if as_json else console or Console()):
        if as_json:
            sys.stdout.write(json.dumps(asdict(one), ensure_ascii=False) + "\n")
