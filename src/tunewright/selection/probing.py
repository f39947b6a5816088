"""What a network that no stage has trained yet knows of a task: by its features, or as it is, and by what a part of the rows teaches it.

Where there is a target, its features of a sample of the training rows are held against it by scores that need no training. Where there is none,
it does at once what it is measured by: a language model foretells the texts, a recogniser writes down what it hears.
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
from tunewright.pipeline.results.evaluate_stage import predict_split
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
    """What is seen of a candidate. Of one that is measured as it is there are no scores of features."""

    outcome: Outcome
    """The held-out answers of a linear probe on its features, or its own."""
    probe: Estimate
    """The metric of these answers."""
    neighbours: float | None = None
    logme: float | None = None
    h_score: float | None = None
    """None: the target has no classes."""
    leep: float | None = None
    """None: the candidate names no classes of its own."""
    tuned: tuple[Outcome, Estimate] | None = None
    """The answers, and their metric, of what was fine-tuned on the sample's other rows; None: nothing was."""


def paired(one: Measured, other: Measured) -> tuple[Outcome, Outcome]:
    """The answers of both to the same rows in the same order: those of what was fine-tuned, where both were."""
    if one.tuned is not None and other.tuned is not None:
        return one.tuned[0], other.tuned[0]
    return one.outcome, other.outcome


def metric_of(task: Task) -> Metric | None:
    """By what models are compared before they are trained for a task; None: there is nothing that would be fair."""
    if task.evaluation is None:
        return METRICS[task.metrics[0]] if task.target_kind is not None else None
    return METRICS[task.evaluation.zero_shot[0]] if task.evaluation.zero_shot is not None else None


def sample_of(prepared: Prepared, seed: int, rows: int) -> pa.Table:
    """So many training rows at most, the same for each candidate."""
    table = prepared.table("train")
    return table.take(np.sort(permutation(seed, "choose", 0, table.num_rows)[:rows]))


def measure(ingredients: StageParts, origin: StartingModel | None, table: pa.Table) -> Measured:
    """What a network knows of rows of its task."""
    if ingredients.task.evaluation is not None:
        return _as_it_is(ingredients, table)
    return _by_features(ingredients, origin, table)


def _as_it_is(ingredients: StageParts, table: pa.Table) -> Measured:
    examination, metric = ingredients.task.evaluation, metric_of(ingredients.task)
    assert examination is not None and examination.zero_shot is not None and metric is not None
    _, measured = examination.zero_shot
    outcome = Outcome(*measured(ingredients.network, ingredients.preprocessor.inputs, table))
    found = bootstrap([metric], outcome, resamples=RESAMPLES, seed=ingredients.recipe.seed)
    return Measured(outcome=outcome, probe=found[metric.name])


def _by_features(ingredients: StageParts, origin: StartingModel | None, table: pa.Table) -> Measured:
    """The scores of its features."""
    recipe, target = ingredients.recipe, ingredients.preprocessor.target
    assert target is not None
    encoded = target.encode(table)
    examples = ingredients.preprocessor.inputs.examples(table, encoded)
    source = _source(origin, ingredients.preprocessor.inputs.input_shape)

    def looked_at(inputs: Any) -> list[torch.Tensor]:
        named = [] if source is None else [source(inputs).softmax(1)]
        return [*layer_means(ingredients.network, inputs), *named]

    with evaluating(ingredients.network), torch.inference_mode():
        layers = [found.double().numpy() for found in of_all(examples, BATCH, looked_at)]
    named = None if source is None else layers.pop()
    features = averaged(layers)
    truth = target.truth(encoded)
    metric = METRICS[ingredients.task.metrics[0]]
    with_one = np.concatenate([features, np.ones((len(features), 1))], 1)
    if target.classes is not None and not target.several:
        matrix = one_hot(truth)
        logits = held_out_logits(features, truth, seed=recipe.seed)
        logits = np.zeros(matrix.shape) if logits is None else logits
        outcome = Outcome(logits, np.searchsorted(np.unique(truth), truth))
        close = float((nearest(features, matrix, NEIGHBOURS).argmax(1) == outcome.target).mean())
    else:
        matrix = np.asarray(truth, dtype=np.float64).reshape(len(truth), -1)
        scaled = (matrix - matrix.mean(0)) / np.maximum(matrix.std(0), 1e-12)
        outputs = held_out_numbers(features, matrix, seed=recipe.seed)
        # Several labels: above 1/2 is yes, which the metrics read as a logit above 0.
        outcome = Outcome(outputs - 0.5, truth) if target.several else Outcome(outputs[:, 0], truth)
        close = -float(((nearest(features, scaled, NEIGHBOURS) - scaled) ** 2).mean())
        matrix = scaled
    classes = target.classes is not None and not target.several
    return Measured(
        outcome=outcome,
        probe=bootstrap([metric], outcome, resamples=RESAMPLES, seed=recipe.seed)[metric.name],
        neighbours=close,
        logme=logme(with_one, matrix),
        h_score=h_score(features, truth) if classes else None,
        leep=leep(named, truth) if named is not None and classes else None,
    )


def fine_tuned(job: StageJob, table: pa.Table, screen: Console) -> tuple[Outcome, Estimate]:
    """What fine-tuning makes of a candidate: it learns from two thirds of the rows, as its stage says, and is measured on the last
    third, three times; each row is foretold once, by a network that did not see it. It takes as many steps as on all of the rows.

    Neither validation nor test rows have a part in it, so a stage that would stop early goes on to its last epoch.
    """
    task = get_task(job.recipe.task)
    metric = metric_of(task)
    assert metric is not None
    epochs = math.ceil(job.recipe.train.epochs * FOLDS / (FOLDS - 1))
    train = job.recipe.train.model_copy(update={"epochs": epochs, "early_stopping": None})
    stage = replace(job.stage, recipe=job.recipe.model_copy(update={"train": train}))
    alone = replace(job.prepared, manifest=replace(job.prepared.manifest, splits={}))
    job = replace(job, stage=stage, prepared=alone)
    answers: list[tuple[np.ndarray, np.ndarray]] = []
    for number, (learned, held) in enumerate(folds_of(job, table)):
        screen.info(f"  fine-tuning on {len(learned):,} of {table.num_rows:,} rows, {number + 1} of {FOLDS}")
        rows = {"train": table.take(learned), "test": table.take(held)}
        with learned_from(job, rows, mix(job.recipe.seed, "choose", number) % 2**32) as again:
            tuned = load_origin(again.folder / "model")
            if task.evaluation is None:
                answers.append(predict_split(tuned.network, tuned.preprocessor, again.prepared, "test"))
            else:
                assert task.evaluation.zero_shot is not None
                answers.append(task.evaluation.zero_shot[1](tuned.network, tuned.preprocessor.inputs, rows["test"]))
    outputs, target = (np.concatenate(parts) for parts in zip(*answers))
    outcome = Outcome(outputs, target)
    found = bootstrap([metric], outcome, resamples=RESAMPLES, seed=job.recipe.seed)
    return outcome, found[metric.name]


def folds_of(job: StageJob, table: pa.Table) -> list[tuple[np.ndarray, np.ndarray]]:
    """The places of the rows to learn from and of those that are held out, each row being held out once. Classes are divided evenly; what
    the split keeps together, such as a speaker's recordings, stays together.

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
                "the rows of a sample cannot be held out in turns",
                place="data.split.column",
                found=f"{count} of {split.column!r} among {table.num_rows:,} rows",
                expected=f"{FOLDS} or more",
                fix="a larger --sample, or leave --tune out",
            )
        return list(GroupKFold(FOLDS, shuffle=True, random_state=seed).split(places, groups=groups))
    classes: list[str] = []
    if manifest.target_kind == "category" and manifest.target is not None:
        classes = [str(value) for value in table[manifest.target].to_pylist()]
    if max(Counter(classes).values(), default=0) >= FOLDS:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # of a class with fewer rows than folds
            return list(StratifiedKFold(FOLDS, shuffle=True, random_state=seed).split(places, classes))
    return list(KFold(FOLDS, shuffle=True, random_state=seed).split(places))


def _source(origin: StartingModel | None, shape: tuple[int, ...]) -> torch.nn.Module | None:
    """The whole network that a candidate was trained as, where it names classes and reads inputs of this shape."""
    target = origin.preprocessor.target if origin is not None else None
    if origin is None or target is None or target.classes is None or target.several:
        return None
    return origin.network.eval() if origin.network.spec.accepts(tuple(shape)) else None


def averaged(layers: list[np.ndarray]) -> np.ndarray:
    """[N, at most N]: features whose inner products are the mean of the layers' own.

    Layers differ in width, so their features cannot be averaged, but their rows' inner products can, once each layer is centred
    and has rows of mean squared length 1. The result is given in its principal directions, the largest first.
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
