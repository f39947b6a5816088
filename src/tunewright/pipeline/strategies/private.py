"""Training with differential privacy: what the recipe asks for, what has to be refused, and the record of what was spent.

Three files in a stage's folder belong to it. `privacy.json` records how much privacy the steps so far have cost; it is written before
each step's noise is drawn, so that a crash can only overstate the cost. `privacy.key` is the secret seed of sampling and noise: whoever
has it and the weights could subtract the noise. It is kept until `summary.json` is written, so that a resumed stage takes the same
steps, and then deleted. `summary.json` keeps the final account.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from tunewright.console import Console
from tunewright.data.batches.batch import Examples
from tunewright.data.batches.poisson_sampler import PoissonBatches
from tunewright.data.prepared import Prepared
from tunewright.data.source import ROW
from tunewright.errors import ArtifactError, DataError, RecipeError
from tunewright.files import sync_folder, write_json
from tunewright.models.recommendation.embedding_table import has_sparse_gradients
from tunewright.pipeline.build.parts import StageParts
from tunewright.pipeline.session.session import Session
from tunewright.pipeline.stage import StageJob
from tunewright.pipeline.strategies.base import TrainedWeights
from tunewright.pipeline.strategies.single import SingleProcess
from tunewright.pipeline.summary.privacy_lineage import (
    learned,
    say_what_adds_up,
    starting_lineage,
    statistics,
    warn_of_statistics,
)
from tunewright.recipe.schema import Privacy, Recipe
from tunewright.runs.folder import read_json
from tunewright.runs.summary.training import PrivacyAccount
from tunewright.tasks.base.public_statistics import outside
from tunewright.training import freezing
from tunewright.training.freezing import never_moves
from tunewright.training.gradients import ExactGradient, GradientEstimator
from tunewright.training.privacy.accounting import Account, Steps, convolved_or_none, noise_for, usual_delta
from tunewright.training.privacy.dp_sgd import PrivateGradient, require_told_apart
from tunewright.training.privacy.lineage import Spent
from tunewright.training.state import State

KEY, BOOK = "privacy.key", "privacy.json"
# The clipped gradients of so many examples are verified one by one before the first step.
TRIED = 4


@dataclass(frozen=True, kw_only=True)
class PrivateTraining:
    """The batches and the gradient estimator of a private training, and its account."""

    batches: PoissonBatches
    gradient: PrivateGradient
    privacy: Privacy
    account: Account
    steps: int
    folder: Path

    def facts(self) -> PrivacyAccount:
        """What was spent in the end, by two accountants."""
        spent = read_json(self.folder / BOOK, "the book of a private stage")["steps"]
        epsilon = self.account.epsilon(spent)
        taken = Steps(noise_multiplier=self.account.noise_multiplier, rate=self.account.rate, steps=spent)
        return PrivacyAccount(
            epsilon=epsilon,
            epsilon_prv=convolved_or_none([taken], self.account.delta),
            target_epsilon=self.privacy.epsilon,
            delta=self.account.delta,
            unit=self.privacy.unit,
            units=self.batches.units,
            rate=self.batches.rate,
            steps=spent,
            noise_multiplier=self.account.noise_multiplier,
            clip_norm=self.privacy.clip_norm,
        )


class Private(SingleProcess):
    """See `Strategy`. One process draws random batches, and clips and noises their gradients."""

    def _open_session(self, console: Console) -> Session:
        session = super()._open_session(console)
        self.training = private_training(self.job, self.parts, session, console)
        self.gradient = self.training.gradient
        return session

    @property
    def batches(self) -> PoissonBatches:
        return self.training.batches

    def close(self, state: State) -> TrainedWeights:
        self.training.gradient.remove()
        return replace(super().close(state), privacy=self.training.facts())


def private_training(job: StageJob, parts: StageParts, session: Session, console: Console) -> PrivateTraining:
    """Prepare a private training, after checking that this network can be trained with privacy.

    Raises:
        RecipeError: it cannot, or no noise is enough.
        ArtifactError: the stage was begun, and its key is missing.
    """
    recipe, prepared, folder = parts.recipe, parts.prepared, job.folder
    privacy = recipe.privacy
    assert privacy is not None
    examples = _made_ready(session)
    own = statistics(job, prepared, parts.preprocessor)
    expected = recipe.train.batch_size * recipe.train.accumulate
    batches = PoissonBatches(
        examples=examples,
        expected=expected,
        most=recipe.train.batch_size,
        key=_key(folder),
        users=None if privacy.unit == "example" else users_of(recipe, prepared, examples),
    )
    if batches.expected > batches.units:
        raise RecipeError(
            "a step cannot have more units than there are",
            place="train.batch_size",
            found=f"{expected:,} in a step",
            expected=f"at most {batches.units:,}",
            fix=f"train.batch_size: {max(1, batches.units // 10)}",
        )
    steps = recipe.train.epochs * batches.steps_per_epoch
    delta = usual_delta(batches.units) if privacy.delta == "auto" else privacy.delta
    noise = noise_for(privacy.epsilon, delta=delta, rate=batches.rate, steps=steps)
    account = Account(noise_multiplier=noise, rate=batches.rate, delta=delta)
    spent = Spent(steps=Steps(noise_multiplier=noise, rate=batches.rate, steps=steps), delta=delta, unit=privacy.unit)
    _say(privacy, spent, batches.units, console)
    say_what_adds_up(starting_lineage(job), learned(job, prepared, spent, own), console)
    warn_of_statistics(own, console)
    for column, count in outside(prepared, recipe).items():
        console.warning(
            f"{count:,} training rows have values of {column!r} outside its public categories, read as unknown"
        )
    gradient = PrivateGradient(
        clip_norm=privacy.clip_norm,
        noise_multiplier=noise,
        expected=expected,
        key=batches.key,
        before=_bookkeeper(folder, account),
    )
    freezing.start_epoch(session.plans, 0)
    some = torch.arange(min(TRIED, len(examples)))
    parameters = [value for group in session.optimizer.param_groups for value in group["params"]]
    single = [examples.batch(one, 0) for one in some.split(1)]
    require_told_apart(gradient, session.model, examples.batch(some, 0), single, session.objective, parameters)
    return PrivateTraining(
        batches=batches, gradient=gradient, privacy=privacy, account=account, steps=steps, folder=folder
    )


def _say(privacy: Privacy, spent: Spent, units: int, console: Console) -> None:
    """Report what the stage will cost."""
    console.info(
        f"privacy: ε = {privacy.epsilon:g} at δ = {spent.delta:.2g} for {units:,} {privacy.unit}s: {spent.steps.steps:,} steps that "
        f"each draw {spent.steps.rate:.3%}, noise {spent.steps.noise_multiplier:.3f} times the norm of {privacy.clip_norm:g}"
    )
    if spent.delta >= 1 / units:
        console.warning(
            f"δ = {spent.delta:.2g} is no less than 1/{units:,}: it would allow a whole {privacy.unit} to be published"
        )


@contextmanager
def dry_run_gradient(session: Session) -> Generator[GradientEstimator]:
    """Yield the estimator of a dry run, which does the same work as in the training and records nothing.

    Raises:
        RecipeError: the network cannot be trained with privacy, which the recipe asks for.
    """
    privacy, train = session.recipe.privacy, session.recipe.train
    if privacy is None:
        yield ExactGradient()
        return
    _made_ready(session)
    gradient = PrivateGradient(
        clip_norm=privacy.clip_norm,
        noise_multiplier=1.0,
        expected=train.batch_size * train.accumulate,
        key=0,
        before=lambda step: None,
    )
    try:
        yield gradient
    finally:
        gradient.remove()


def steps_per_epoch(session: Session) -> int:
    """Return the steps of an epoch; with privacy, those in which each example is drawn once on average."""
    if session.recipe.privacy is None:
        return session.batches.steps_per_epoch
    return max(1, round(len(session.train) / (session.recipe.train.batch_size * session.recipe.train.accumulate)))


def _made_ready(session: Session) -> Examples:
    """Return the examples, each of one unit, and let the loss be computed from the network's outputs.

    Raises:
        RecipeError: Opacus is not installed, or the network or the examples cannot be trained on with privacy.
    """
    if find_spec("opacus") is None:
        raise RecipeError(
            "training with privacy needs Opacus, which is not installed",
            place="privacy",
            fix='pip install "tunewright[privacy]"',
        )
    _require_layers(session)
    examples = session.train.one_row_each()
    session.network.materialize_logits()
    return examples


def users_of(recipe: Recipe, prepared: Prepared, examples: Examples) -> list[Tensor]:
    """Return for each user the positions of their examples.

    Raises:
        RecipeError: the recipe does not say which column holds the users.
    """
    column = recipe.data.user or recipe.data.split.column
    if column is None:
        raise RecipeError(
            "the recipe protects users, but does not name the column that holds them",
            place="privacy.unit",
            found="user",
            expected="data.user: the column's name",
            fix="data.user: NAME, or privacy.unit: example",
        )
    table = prepared.table("train", [column])
    if table[column].null_count:
        raise DataError(
            f"{table[column].null_count:,} training rows have no user, so it is unknown whose they are",
            file=prepared.manifest.source,
            place=f"column '{column}'",
            fix="give each row a user, or write privacy.unit: example",
        )
    numbers = table[column].combine_chunks().dictionary_encode().indices.to_numpy(zero_copy_only=False)
    rows = table[ROW].to_numpy()
    order = np.argsort(rows, kind="stable")
    user = numbers[order[np.searchsorted(rows[order], examples.rows.numpy())]]
    places = np.argsort(user, kind="stable")
    cuts = np.flatnonzero(np.diff(user[places])) + 1
    return [torch.from_numpy(part) for part in np.split(places, cuts)]


def _require_layers(session: Session) -> None:
    """Raise RecipeError for layers whose gradients are known not to be separable by example."""
    if has_sparse_gradients(session.network):
        raise RecipeError(
            "the gradient of a sparse table shows which rows were used, and noise would fill all of them",
            place="model.backbone",
            found="sparse: true",
            expected="a dense table",
            fix="leave sparse out",
        )
    for plan in session.plans:
        if never_moves(plan):
            continue
        for name, module in plan.block.module.named_modules():
            if isinstance(module, nn.modules.batchnorm._BatchNorm):  # pyright: ignore[reportPrivateUsage]  the class of all of them
                raise RecipeError(
                    "a batch norm that is trained mixes examples, so no example's share could be limited",
                    place="privacy",
                    found=f"{plan.block.title}{'.' if name else ''}{name}",
                    expected="norms over each example alone, or a frozen backbone",
                    fix="tune: {freeze: backbone}, or layers with group_norm in place of batch_norm",
                )


def _key(folder: Path) -> int:
    """Return the stage's secret, drawn once from the operating system's randomness."""
    path = folder / KEY
    if path.exists():
        return int(path.read_text(), 16)
    if (folder / BOOK).exists():
        raise ArtifactError(
            "the secret that this private stage was begun with is missing, so it cannot resume with the same noise",
            file=path,
            fix="start a new run under another name and delete nothing; privacy.json records what this one has spent",
        )
    key = secrets.randbits(128)
    folder.mkdir(parents=True, exist_ok=True)
    # Whole or absent: a kill in the middle must not leave half a secret, with which no stage could go on.
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    with os.fdopen(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
        file.write(f"{key:032x}")
        file.flush()
        os.fsync(file.fileno())
    os.replace(temporary, path)
    sync_folder(folder)
    return key


def forget_key(folder: Path) -> None:
    """Delete the secret of a finished stage, one with a summary.json; before that the stage may have to resume."""
    if (folder / "summary.json").exists():
        for path in (folder / KEY, *folder.glob(f".{KEY}.*.tmp")):
            path.unlink(missing_ok=True)


def _bookkeeper(folder: Path, account: Account) -> Callable[[int], None]:
    path = folder / BOOK
    written = read_json(path, "the book of a private stage")["steps"] if path.exists() else 0

    def before(step: int) -> None:
        nonlocal written
        if step < written:
            return  # repeated after a crash, with the same sample and the same noise
        written = step + 1
        write_json(
            path,
            {
                "steps": written,
                "epsilon": account.epsilon(written),
                "delta": account.delta,
                "noise_multiplier": account.noise_multiplier,
                "rate": account.rate,
            },
        )

    return before
