"""Score a pretrained network for a task before training: by its features or zero-shot, and by fine-tuning on a sample.

For tasks with a target, its features of a sample of the training rows get transferability scores, which need no training. Other tasks are
evaluated zero-shot: a language model predicts the texts, a speech model transcribes the recordings.
"""

from __future__ import annotations

import math
import warnings
from collections import Counter
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pyarrow as pa
import torch

from tunewright.console import Console
from tunewright.data.batches.sampler import of_all
from tunewright.data.prepared import Prepared
from tunewright.errors import RecipeError
from tunewright.evaluation.intervals import Estimate, bootstrap
from tunewright.evaluation.metrics import METRICS, Metric, Outcome
from tunewright.evaluation.transferability import h_score, leep, logme, nearest, one_hot
from tunewright.models.core.layer_features import layer_means
from tunewright.models.core.network import evaluating
from tunewright.pipeline.build.parts import StageParts
from tunewright.pipeline.stage import StageJob, load_origin
from tunewright.pipeline.train.retrain import learned_from
from tunewright.random import mix, permutation
from tunewright.tasks.base.task import StartingModel, Task
from tunewright.tasks.registry import get_task
from tunewright.training.linear_probe import held_out_logits, held_out_numbers

BATCH = 64
NEIGHBOURS = 5
RESAMPLES = 1000
# A fine-tune on two thirds of the sample, three times: each row is held out once.
FOLDS = 3


@dataclass(frozen=True, kw_only=True)
class Measured:
    """Hold the scores of a candidate. One that is evaluated zero-shot has no scores of features."""

    outcome: Outcome
    """Held-out predictions of a linear probe on its features, or its own zero-shot predictions."""
    probe: Estimate
    """The metric of these predictions."""
    neighbours: float | None = None
    logme: float | None = None
    h_score: float | None = None
    """None: the target has no classes."""
    leep: float | None = None
    """None: the candidate does not predict classes itself."""
    tuned: tuple[Outcome, Estimate] | None = None
    """Held-out predictions, and their metric, after fine-tuning on the sample's other rows; None: not fine-tuned."""


def paired_outcomes(one: Measured, other: Measured) -> tuple[Outcome, Outcome]:
    """Return the predictions of both on the same rows in the same order; after fine-tuning, if both were fine-tuned."""
    if one.tuned is not None and other.tuned is not None:
        return one.tuned[0], other.tuned[0]
    return one.outcome, other.outcome


def zero_training_metric(task: Task) -> Metric | None:
    """Return the metric that compares models before training for a task; None: there is no fair one."""
    name = task.metrics[0] if task.evaluation.by_batch else task.evaluation.zero_shot
    return None if name is None else METRICS[name]


def sample_rows(prepared: Prepared, seed: int, rows: int) -> pa.Table:
    """Return at most `rows` random training rows, the same for each candidate."""
    table = prepared.table("train")
    return table.take(np.sort(permutation(seed, "choose", 0, table.num_rows)[:rows]))


def measure(parts: StageParts, origin: StartingModel | None, table: pa.Table) -> Measured:
    """Score a network on rows of its task."""
    if not parts.task.evaluation.by_batch:
        return _zero_shot(parts, table)
    return _by_features(parts, origin, table)


def _zero_shot(parts: StageParts, table: pa.Table) -> Measured:
    evaluation, metric = parts.task.evaluation, zero_training_metric(parts.task)
    assert metric is not None
    outcome = Outcome(*evaluation.untrained(parts.network, parts.preprocessor, table))
    found = bootstrap([metric], outcome, resamples=RESAMPLES, seed=parts.recipe.seed)
    return Measured(outcome=outcome, probe=found[metric.name])


def _by_features(parts: StageParts, origin: StartingModel | None, table: pa.Table) -> Measured:
    """Score a network by its features."""
    recipe, target = parts.recipe, parts.preprocessor.column_target
    assert target is not None
    encoded = target.encode(table)
    examples = parts.preprocessor.inputs.examples(table, encoded)
    source = _source_classifier(origin, parts.preprocessor.inputs.input_shape)

    def layer_outputs(inputs: Any) -> list[torch.Tensor]:
        named = [] if source is None else [source(inputs).softmax(1)]
        return [*layer_means(parts.network, inputs), *named]

    with evaluating(parts.network), torch.inference_mode():
        layers = [found.double().numpy() for found in of_all(examples, BATCH, layer_outputs)]
    named = None if source is None else layers.pop()
    features = average_layers(layers)
    truth = target.truth(encoded)
    metric = METRICS[parts.task.metrics[0]]
    with_one = np.concatenate([features, np.ones((len(features), 1))], 1)
    if target.one_class:
        matrix = one_hot(truth)
        logits = held_out_logits(features, truth, seed=recipe.seed)
        logits = np.zeros(matrix.shape) if logits is None else logits
        outcome = Outcome(logits, np.searchsorted(np.unique(truth), truth))
        close = float((nearest(features, matrix, NEIGHBOURS).argmax(1) == outcome.target).mean())
    else:
        matrix = np.asarray(truth, dtype=np.float64).reshape(len(truth), -1)
        scaled = (matrix - matrix.mean(0)) / np.maximum(matrix.std(0), 1e-12)
        outputs = held_out_numbers(features, matrix, seed=recipe.seed)
        # Multi-label: an output above 1/2 is yes, which the metrics read as a logit above 0.
        outcome = Outcome(outputs - 0.5, truth) if target.several else Outcome(outputs[:, 0], truth)
        close = -float(((nearest(features, scaled, NEIGHBOURS) - scaled) ** 2).mean())
        matrix = scaled
    classes = target.one_class
    return Measured(
        outcome=outcome,
        probe=bootstrap([metric], outcome, resamples=RESAMPLES, seed=recipe.seed)[metric.name],
        neighbours=close,
        logme=logme(with_one, matrix),
        h_score=h_score(features, truth) if classes else None,
        leep=leep(named, truth) if named is not None and classes else None,
    )


def fine_tune_folds(job: StageJob, table: pa.Table, console: Console) -> tuple[Outcome, Estimate]:
    """Fine-tune a candidate on two thirds of the rows, as its stage says, and evaluate it on the last third, three times; each row
    is predicted once, by a network that did not see it. Training takes as many steps as on all rows.

    Validation and test rows are not used, so early stopping is off.
    """
    task = get_task(job.recipe.task)
    metric = zero_training_metric(task)
    assert metric is not None
    epochs = math.ceil(job.recipe.train.epochs * FOLDS / (FOLDS - 1))
    train = job.recipe.train.model_copy(update={"epochs": epochs, "early_stopping": None})
    stage = replace(job.stage, recipe=job.recipe.model_copy(update={"train": train}))
    alone = replace(job.prepared, manifest=replace(job.prepared.manifest, splits={}))
    job = replace(job, stage=stage, prepared=alone)
    answers: list[tuple[np.ndarray, np.ndarray]] = []
    for number, (learned, held) in enumerate(make_folds(job, table)):
        console.info(f"  fine-tuning on {len(learned):,} of {table.num_rows:,} rows, {number + 1} of {FOLDS}")
        rows = {"train": table.take(learned), "test": table.take(held)}
        with learned_from(job, rows, mix(job.recipe.seed, "choose", number) % 2**32) as again:
            tuned = load_origin(again.folder / "model")
            answers.append(task.evaluation.untrained(tuned.network, tuned.preprocessor, rows["test"]))
    outputs, target = (np.concatenate(parts) for parts in zip(*answers))
    outcome = Outcome(outputs, target)
    found = bootstrap([metric], outcome, resamples=RESAMPLES, seed=job.recipe.seed)
    return outcome, found[metric.name]


def make_folds(job: StageJob, table: pa.Table) -> list[tuple[np.ndarray, np.ndarray]]:
    """Return the indices of training rows and held-out rows of each fold; each row is held out once. Folds are stratified by
    class; groups of the split, such as a speaker's recordings, stay together.

    Raises:
        RecipeError: there are fewer groups than folds.
    """
    from sklearn.model_selection import GroupKFold, KFold, StratifiedKFold

    manifest, split = job.prepared.manifest, job.recipe.data.split
    seed = mix(job.recipe.seed, "folds") % 2**32
    places = np.arange(table.num_rows)
    if split.by == "group" and split.column in table.column_names:
        groups = [str(value) for value in table[split.column].to_pylist()]
        if (count := len(set(groups))) < FOLDS:
            raise RecipeError(
                "the sample cannot be divided into folds by group",
                place="data.split.column",
                found=f"{count} of {split.column!r} among {table.num_rows:,} rows",
                expected=f"{FOLDS} or more",
                fix="use a larger --sample, or omit --tune",
            )
        return list(GroupKFold(FOLDS, shuffle=True, random_state=seed).split(places, groups=groups))
    classes: list[str] = []
    if manifest.target_kind == "category" and manifest.target is not None:
        classes = [str(value) for value in table[manifest.target].to_pylist()]
    if max(Counter(classes).values(), default=0) >= FOLDS:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # warns of a class with fewer rows than folds
            return list(StratifiedKFold(FOLDS, shuffle=True, random_state=seed).split(places, classes))
    return list(KFold(FOLDS, shuffle=True, random_state=seed).split(places))


def _source_classifier(origin: StartingModel | None, shape: tuple[int, ...]) -> torch.nn.Module | None:
    """Return the candidate's complete classifier, if it predicts classes and its input shape is the same."""
    target = origin.preprocessor.target if origin is not None else None
    if origin is None or target is None or target.classes is None or target.several:
        return None
    return origin.network.eval() if origin.network.spec.accepts(tuple(shape)) else None


def average_layers(layers: list[np.ndarray]) -> np.ndarray:
    """Return features [N, at most N] whose inner products are the mean of the layers' inner products.

    Layers differ in width, so their features cannot be average_layers, but their rows' inner products can, after each layer is centred
    and scaled to rows of mean squared length 1. The result is in its principal directions, the largest first.
    """
    found: list[np.ndarray] = []
    for layer in layers:
        centred = layer - layer.mean(0)
        size = np.sqrt((centred**2).sum(1).mean())
        if np.isfinite(size) and size > 0:
            found.append(centred / (size * np.sqrt(len(layers))))
    if not found:
        return np.zeros((len(layers[0]), 1))
    whole = np.concatenate(found, 1)
    left, sizes, _ = np.linalg.svd(whole, full_matrices=False)
    kept = sizes > 1e-7 * sizes[0]
    return left[:, kept] * sizes[kept]
