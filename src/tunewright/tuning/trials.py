"""Run the trials of a search with Optuna; each trains the recipe's stages without their evaluation."""

from __future__ import annotations

import hashlib
import itertools
import json
import shutil
import sqlite3
import subprocess
import sys
import time
import warnings
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

from tunewright.console import Console, silent
from tunewright.errors import ArtifactError, Diverged, NothingLearned, RecipeError
from tunewright.models.hub.hf_network import first_line
from tunewright.pipeline.read_recipe import given_weights, read_recipe
from tunewright.pipeline.stage import StageJob, recipe_backbone
from tunewright.pipeline.train.methods import is_learned, learn_stage
from tunewright.random import mix
from tunewright.recipe.search_space import Choice
from tunewright.recipe.stages import stage_recipes
from tunewright.runs.summary.stage import read_summary
from tunewright.tuning.search import Search, open_search

if TYPE_CHECKING:
    from optuna import Study, Trial
    from optuna.samplers import BaseSampler

Sampler = Literal["tpe", "random", "grid"]
# ASHA promotes a third of the trials from each rung to the next (Li et al. 2020, "A system for massively parallel hyperparameter
# tuning"); trainings of fewer epochs than RUNGS_FROM are not pruned.
FACTOR, RUNGS_FROM = 3, 4
# Seconds that a process waits for a lock of the database.
PATIENCE = 60


@dataclass(frozen=True, kw_only=True)
class SearchSettings:
    """Say how a search is carried out."""

    trials: int
    """The number of finished trials to reach, those of earlier calls included."""
    sampler: Sampler = "tpe"
    prune: bool = True
    """Stop trials that are behind others after the same number of epochs."""
    hours: float | None = None
    """No trial is started after this many hours of this call."""
    workers: int = 1
    """Processes that run trials in parallel."""


class Pruned(Exception):
    """Stop a trial that is not worth its remaining epochs."""


def parse_sampler(name: str) -> Sampler:
    """Return the sampler of this name.

    Raises:
        RecipeError: there is none.
    """
    if name not in get_args(Sampler):
        raise RecipeError(
            "there is no such sampler", place="--sampler", found=name, expected=", ".join(get_args(Sampler)),
            fix="omit --sampler",
        )  # fmt: skip
    return name  # pyright: ignore[reportReturnType]  seen above


def open_study(search: Search, settings: SearchSettings, worker: int = 0) -> Study:
    """Open or create Optuna's study in the folder of the search.

    Raises:
        ArtifactError: its database is damaged.
    """
    import optuna

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    path = (search.folder / "study.db").resolve()
    try:
        _require_intact(path)
        storage = optuna.storages.RDBStorage(f"sqlite:///{path}", engine_kwargs={"connect_args": {"timeout": PATIENCE}})
        direction = "maximize" if search.greater else "minimize"
        study = optuna.create_study(study_name="tune", storage=storage, load_if_exists=True, direction=direction)
        _ = study.trials
    except Exception as error:
        raise ArtifactError(
            f"the database of trials cannot be read: {first_line(error)}",
            file=path,
            expected="an intact database of trials",
            fix="restore it from a copy, or delete it: then all trials are repeated",
        ) from error
    # A resumed or parallel search must not repeat the draws of the first one.
    seed = mix(search.seed, "sampler", worker, len(study.trials)) % 2**32
    study.sampler = _sampler(settings.sampler, seed)
    rungs = settings.prune and search.epochs >= RUNGS_FROM
    study.pruner = (
        optuna.pruners.SuccessiveHalvingPruner(min_resource=-(-search.epochs // 4), reduction_factor=FACTOR)
        if rungs
        else optuna.pruners.NopPruner()
    )
    return study


def _require_intact(path: Path) -> None:
    """Check SQLite's file, if it exists.

    Raises:
        sqlite3.DatabaseError, ValueError: it is damaged.
    """
    if not path.exists():
        return
    with closing(sqlite3.connect(path, timeout=PATIENCE)) as database:
        (found,) = database.execute("PRAGMA integrity_check(1)").fetchone()
    if found != "ok":
        raise ValueError(found)


def _sampler(sampler: Sampler, seed: int) -> BaseSampler:
    import optuna

    if sampler != "tpe":
        return optuna.samplers.RandomSampler(seed=seed)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Optuna warns that these options are experimental
        return optuna.samplers.TPESampler(seed=seed, constant_liar=True, multivariate=True)


def full_grid(search: Search) -> list[dict[str, Any]]:
    """Return all combinations of the lists of values.

    Raises:
        RecipeError: a range has no list of values.
    """
    ranges = [choice.name for choice in search.space if choice.kind != "one_of"]
    if ranges:
        raise RecipeError(
            "a grid needs lists of values",
            place=f"search.{ranges[0]}",
            found="a range",
            expected="a list",
            fix="list the values, or use --sampler tpe",
        )
    names = [choice.name for choice in search.space]
    values = [[_to_optuna(value) for value in choice.values] for choice in search.space]
    return [dict(zip(names, found)) for found in itertools.product(*values)]


def resume_trials(study: Study, search: Search, grid: list[dict[str, Any]], console: Console) -> None:
    """Queue again the trials that a killed process left; in a new study, queue the unchanged recipe, or the grid in order."""
    import optuna

    if not study.trials:
        usual = _recipe_values(search)
        for params in grid or ([usual] if usual is not None else []):
            study.enqueue_trial(params)
        return
    open_trials = [trial for trial in study.trials if trial.state == optuna.trial.TrialState.RUNNING]
    waiting = [
        trial.system_attrs.get("fixed_params")
        for trial in study.trials
        if trial.state == optuna.trial.TrialState.WAITING
    ]
    for trial in open_trials:
        if trial.params not in waiting:  # before `tell`: a kill between the two must not lose the trial
            study.enqueue_trial(trial.params)
        study.tell(trial.number, state=optuna.trial.TrialState.FAIL)
    finished = sum(trial.state.is_finished() for trial in study.trials) - len(open_trials)
    console.info(f"resuming {search.folder}: {finished} trials are finished, {len(open_trials)} were interrupted")


def _recipe_values(search: Search) -> dict[str, Any] | None:
    """Return the recipe's own values; None if one is outside of the search space."""
    loaded = read_recipe(search.recipe, search.overrides, None)[0].model_dump(mode="json")
    found: dict[str, Any] = {}
    for choice in search.space:
        value: Any = loaded
        for part in choice.name.split("."):
            value = (
                value[int(part)] if isinstance(value, list) else value.get(part) if isinstance(value, dict) else None
            )
        inside = (
            value in choice.values
            if choice.kind == "one_of"
            else isinstance(value, int | float) and choice.values[0] <= value <= choice.values[1]
        )
        if not inside:
            return None
        found[choice.name] = _to_optuna(value) if choice.kind == "one_of" else value
    return found


def run_trials(study: Study, search: Search, settings: SearchSettings, console: Console) -> None:
    """Run trials until enough are finished, by all processes, or the hours have passed."""
    import optuna

    hours = settings.hours
    until = None if hours is None else time.monotonic() + 3600 * hours
    while (
        sum(trial.state in (optuna.trial.TrialState.COMPLETE, optuna.trial.TrialState.PRUNED) for trial in study.trials)
        < settings.trials
    ):
        if until is not None and time.monotonic() > until:
            console.warning(f"{hours:g} hours have passed: no further trial is started")
            return
        trial = study.ask()
        params = {choice.name: _suggested(trial, choice) for choice in search.space}
        try:
            value = _run_trial(search, trial, params)
        except Pruned as reason:
            study.tell(trial, state=optuna.trial.TrialState.PRUNED)
            console.info(f"trial {trial.number}: {format_settings(params)}: pruned ({reason})")
            continue
        except (Diverged, NothingLearned) as error:
            study.tell(trial, state=optuna.trial.TrialState.PRUNED)
            console.info(f"trial {trial.number}: {format_settings(params)}: {error.problem}")
            continue
        study.tell(trial, value)
        console.info(f"trial {trial.number}: {format_settings(params)}: {search.metric} {value:.4f}")


def _suggested(trial: Trial, choice: Choice) -> Any:
    """Ask Optuna for a value, and return it as in the recipe. Optuna stores lists and mappings as text."""
    if choice.kind == "one_of":
        found = trial.suggest_categorical(choice.name, [_to_optuna(value) for value in choice.values])
        return from_optuna(choice, found)
    low, high = choice.values
    if choice.kind == "whole":
        return trial.suggest_int(choice.name, low, high)
    return trial.suggest_float(choice.name, low, high, log=choice.kind == "log")


def from_optuna(choice: Choice, kept: Any) -> Any:
    """Convert a value that Optuna stores to that of the recipe."""
    return next(value for value in choice.values if _to_optuna(value) == kept) if choice.kind == "one_of" else kept


def _to_optuna(value: Any) -> Any:
    return value if isinstance(value, str | int | float | bool | None) else json.dumps(value)


def _run_trial(search: Search, trial: Trial, params: dict[str, Any]) -> float:
    """Train the stages of a trial, delete them, and return the best validation result of the last one."""
    overrides = [*search.overrides, *(choice.override(params[choice.name]) for choice in search.space)]
    loaded = read_recipe(search.recipe, overrides, None)[0]
    place = search.folder / "trials" / hashlib.sha256(json.dumps(params, sort_keys=True).encode()).hexdigest()[:16]
    stages = stage_recipes(loaded)
    source = given_weights(stages[0].recipe, search.base)

    def watch(epoch: int, valid: dict[str, float]) -> None:
        value = valid.get(search.metric)
        if value is None:
            return
        trial.report(value, epoch)
        if epoch < search.epochs and trial.should_prune():
            raise Pruned(f"{search.metric} {value:.4f} after epoch {epoch}")

    try:
        for index, (stage, data) in enumerate(zip(stages, search.prepared, strict=True)):
            folder = place / stage.name
            if not is_learned(folder):
                backbone = recipe_backbone(stage.recipe, search.base)
                job = StageJob(stage=stage, folder=folder, source=source, prepared=data, backbone=backbone)
                learn_stage(job, silent(), watch if index == len(stages) - 1 else None)
            source = folder / "model"
        best = read_summary(place / stages[-1].name).training.best
    except (Pruned, Diverged, NothingLearned):
        shutil.rmtree(place, ignore_errors=True)
        raise
    if best is None:
        raise RecipeError(
            "this training method gives no validation result to compare trials by",
            place="tune.method",
            expected="training with gradients",
            fix="set what is trained, such as tune: {freeze: none}",
        )
    shutil.rmtree(place, ignore_errors=True)
    assert best.metric == search.metric
    return float(best.value)


def start_worker(search: Search, number: int, settings: SearchSettings) -> subprocess.Popen[bytes]:
    """Start one more process that runs trials; it writes no report."""
    words = ["tune", str(search.recipe), *search.overrides, f"--trials={settings.trials}"]
    words += [f"--sampler={settings.sampler}", "--seeds=0", f"--runs={search.folder.parent}", f"--worker={number}"]
    words += [] if settings.prune else ["--no-prune"]
    words += [f"--hours={settings.hours}"] if settings.hours else []
    return subprocess.Popen([sys.executable, "-P", "-m", "tunewright", *words], stdout=subprocess.DEVNULL)


def run_worker(recipe: Path, overrides: list[str], settings: SearchSettings, *, number: int, runs: Path) -> None:
    """Run trials in a worker process, without a report."""
    search = open_search(recipe, overrides, runs, silent())
    run_trials(open_study(search, settings, number), search, settings, silent())


def format_settings(params: dict[str, Any]) -> str:
    """Format hyperparameters for people."""
    return ", ".join(
        f"{name} {f'{value:.3g}' if isinstance(value, float) else _to_optuna(value)}" for name, value in params.items()
    )
