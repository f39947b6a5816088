"""Learn from few examples: a logistic regression on features, which contrastive pairs have tuned where asked."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import Any

import numpy as np

from tunewright.console import Console
from tunewright.data.batches.batch import Examples
from tunewright.errors import RecipeError
from tunewright.models.core.network import Network
from tunewright.pipeline.build.few_shot_default import FEW, examples_a_class
from tunewright.pipeline.build.parts import StageParts
from tunewright.pipeline.device import choose_device, threads
from tunewright.pipeline.stage import StageJob
from tunewright.pipeline.strategies.base import TrainedWeights
from tunewright.pipeline.train.finish_stage import Training, finish_stage
from tunewright.pipeline.train.train_stage import train_stage
from tunewright.runs.metrics_log import MetricsLog
from tunewright.runs.summary.training import FewShotSummary, StrengthSummary, TrainingConditions
from tunewright.training import freezing
from tunewright.training.freeze_certificate import fingerprint
from tunewright.training.linear_probe import Fit, fit_logistic, last_layer, take_features, write_layer
from tunewright.training.objectives.base import Objective
from tunewright.training.objectives.contrastive import ContrastiveLoss, PairExamples, pairs_an_epoch
from tunewright.training.objectives.supervised import SupervisedLoss
from tunewright.training.state import State


def learn_from_features(job: StageJob, parts: StageParts, console: Console) -> None:
    """Replace only the network's last layer, by a logistic regression on its inputs.

    Raises:
        RecipeError: the network does not end with a linear layer, or `train` asks for what a regression does not have.
    """
    started = time.perf_counter()
    network = parts.network.to(device := choose_device(job.recipe))
    plain = _examples(parts)
    texts = parts.describe(plain, console)
    examples = plain.to(device)
    if parts.augmentation is not None:
        console.warning("train.augment is not used: features are computed from the unchanged pictures")
    name, _ = _last_layer(network, examples)
    plans = [
        replace(plan, moving=frozenset(plan.moving & {f"{name}.weight", f"{name}.bias"}))
        for plan in freezing.resolve_trainable(network, parts.tune)
    ]
    before = fingerprint(network)
    MetricsLog(job.folder / "metrics.jsonl", step=0).close()  # there are no steps
    found = _solve_head(job, parts, examples, console)
    seconds = time.perf_counter() - started
    state = State(epoch=1, seconds=seconds, examples=len(examples), finished="solved")
    conditions = TrainingConditions(few_shot=found, preparation_seconds=0.0)
    weights = TrainedWeights(plans=plans, before=before)
    training = Training(state=state, weights=weights, lr=None, conditions=conditions, texts=texts)
    finish_stage(job, parts, training, console)


def learn_from_pairs(job: StageJob, parts: StageParts, console: Console) -> None:
    """Train the encoder so that examples of one class are close and others apart, then solve for the head.

    SetFit (Tunstall et al. 2022, section 3): both steps, with the features that the head reads as the embedding.
    """
    network = parts.network.to(choose_device(job.recipe))
    examples = _examples(parts)
    described = parts.describe(examples, console)
    if parts.augmentation is not None and parts.augmentation.mixes:
        raise RecipeError(
            "mixed pictures are of no one class, which pairs need",
            place="train.augment",
            fix="take mixup and cutmix out of train.augment, or write tune: {method: gradient}",
        )
    _, layer = _last_layer(network, examples.to(choose_device(job.recipe)))
    assert examples.target is not None
    pairs = PairExamples(
        examples=examples,
        classes=examples.target.cpu().numpy(),
        seed=job.recipe.seed,
        each=pairs_an_epoch(job.recipe.train.epochs),
    )
    console.info(f"{job.stage.name}: {len(pairs):,} pairs an epoch, then a logistic regression on the features")
    objective = Objective(name="contrastive", supervised=True, bind=lambda seed, device: ContrastiveLoss(layer=layer))
    paired = replace(parts, objective=objective, encoded={"train": pairs, "valid": None}, description=described)

    def solve_and_finish(job: StageJob, _paired: StageParts, training: Training, console: Console) -> None:
        found = _solve_head(job, parts, examples.to(choose_device(job.recipe)), console)
        conditions = replace(training.conditions, few_shot=found)
        weights = replace(training.weights, after=None)  # the network holds them whole, with the head
        finish_stage(job, parts, replace(training, weights=weights, conditions=conditions, texts=described), console)

    train_stage(job, paired, console, finish=solve_and_finish)


def _solve_head(job: StageJob, parts: StageParts, examples: Examples, console: Console) -> FewShotSummary:
    """Write the regression into the network; return what the summary says of it."""
    network = parts.network
    network.reduced = False  # a regression from few rows is worth all digits
    objective = parts.objective.bind(job.recipe.seed, next(network.parameters()).device)
    assert isinstance(objective, SupervisedLoss) and examples.target is not None
    target = parts.preprocessor.target
    assert target is not None and target.classes is not None
    _, layer = _last_layer(network, examples)
    labels = examples.target.cpu().numpy()
    with threads(job.recipe.hardware.threads or 1):
        features = take_features(network, layer, examples)
    weights = objective.class_weights
    fit = fit_logistic(
        features,
        labels,
        len(target.classes),
        seed=job.recipe.seed,
        weights=None if weights is None else weights.cpu().double().numpy(),
        bias=layer.bias is not None,  # pyright: ignore[reportUnnecessaryComparison]
        choose=parts.tune.method == "features",
    )
    write_layer(layer, fit)
    notes = _notes(labels, target.classes, fit, parts.tune.method or "")
    best = min(fit.scores, key=lambda score: score.log_loss) if fit.scores else None
    scored = (
        f", {fit.folds}-fold cross-validated log loss {best.log_loss:.4f}, accuracy {best.accuracy:.4f}" if best else ""
    )
    console.info(f"{job.stage.name}  logistic regression on {features.shape[1]} features, C {fit.C:g}{scored}")
    for note in notes:
        console.warning(note)
    count = examples_a_class(parts.prepared)
    return FewShotSummary(
        method="contrastive" if parts.tune.method == "contrastive" else "features",
        requested="method" in job.recipe.tune.model_fields_set,
        examples_per_class=count,
        threshold=FEW,
        features=features.shape[1],
        strength=fit.C,
        folds=fit.folds,
        scores=[
            StrengthSummary(strength=score.C, log_loss=score.log_loss, accuracy=score.accuracy) for score in fit.scores
        ],
        notes=notes,
    )


def _notes(labels: np.ndarray, classes: list[str], fit: Fit, method: str) -> list[str]:
    counts = np.bincount(labels, minlength=len(classes))
    alone = [classes[k] for k in np.flatnonzero(counts == 1)]
    absent = [classes[k] for k in np.flatnonzero(counts == 0)]
    notes: list[str] = []
    if method == "contrastive":
        notes.append(
            f"C is {fit.C:g}, the usual: the encoder has seen all labels, so cross-validation would only flatter"
        )
    elif not fit.folds:
        notes.append(f"C is {fit.C:g}, unchosen: cross-validation needs two classes with two training examples each")
    elif alone:
        notes.append(f"the cross-validation never scores the classes with one training example: {', '.join(alone[:5])}")
    if absent:
        notes.append(f"never predicted, as no training row shows them: {', '.join(absent[:5])}")
    return notes


def _examples(parts: StageParts) -> Examples:
    train = parts.recipe.train
    if train.label_smoothing:
        raise RecipeError(
            "a logistic regression on features smooths no labels",
            place="train.label_smoothing",
            found=train.label_smoothing,
            fix="leave it out, or write tune: {method: gradient}",
        )
    examples = parts.examples("train")
    assert examples is not None  # prepare refuses data without a training row
    return examples


def _last_layer(network: Network, examples: Examples) -> Any:
    import torch

    return last_layer(network, examples.batch(torch.arange(1)).inputs)
