"""`tunewright tune`: look for better settings on the validation rows alone, then hold the best against the recipe as it is.

Trials are Optuna's and stand in a file, `study.db`; what a trial trains is a run's stages without their evaluation. A search that was
killed goes on: finished trials count, and one that was cut short is taken up at its newest checkpoint. No trial ever sees a test row;
those are looked at once, when the winner and the recipe as it is are trained with several seeds.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import shutil
import subprocess
import sys
import time
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

from tunewright.data.prepared import Prepared
from tunewright.errors import ArtifactError, Diverged, NothingLearned, RecipeError
from tunewright.evaluation.intervals import Estimate, over_seeds
from tunewright.evaluation.metrics import METRICS
from tunewright.files import write_atomic, write_json
from tunewright.random import mix
from tunewright.recipe.named import parse_named
from tunewright.recipe.schema import Recipe
from tunewright.recipe.search import Choice, choices
from tunewright.recipe.stages import stage_recipes
from tunewright.report.tuning import TrialShown, Tuned, tuning_page
from tunewright.report.words import Words, report_language
from tunewright.runs import identity, read_json
from tunewright.stages.console import Screen, silent
from tunewright.stages.foretelling import plan_run
from tunewright.stages.ingredients import prepare_data
from tunewright.stages.job import StageJob, recipe_backbone
from tunewright.stages.learning import learn_stage
from tunewright.stages.plan_table import duration
from tunewright.stages.recipes import given_weights, read_recipe
from tunewright.stages.run import run
from tunewright.tasks.table import get_task
from tunewright.training.objectives import SELF_SUPERVISED

if TYPE_CHECKING:
    from optuna import Study, Trial
    from optuna.samplers import BaseSampler

Sampler = Literal["tpe", "random", "grid"]
# ASHA lets a third of the trials go on from each rung to the next (Li et al. 2020, "A system for massively parallel hyperparameter
# tuning"); a training of fewer epochs than this has no rungs worth the name.
FACTOR, RUNGS_FROM = 3, 4
# Seconds that a second process waits for the file of trials.
PATIENCE = 60


class LetGo(Exception):
    """A trial that is not worth its remaining epochs."""


@dataclass(frozen=True, kw_only=True)
class Search:
    """A search before its first trial."""

    recipe: Path
    overrides: list[str]
    base: Path
    folder: Path
    space: list[Choice]
    metric: str
    greater: bool
    epochs: int
    seed: int
    prepared: list[Prepared] = field(default_factory=list)


def tune(
    recipe: Path,
    overrides: list[str],
    *,
    trials: int,
    sampler: Sampler = "tpe",
    prune: bool = True,
    hours: float | None = None,
    workers: int = 1,
    seeds: int = 3,
    runs: Path = Path("runs"),
    lang: str = "en",
    screen: Screen,
) -> Tuned:
    """Search, then compare.

    Args:
        trials: finished ones that there are to be, those of an earlier call counted.
        prune: let go of trials that are behind others after as many epochs.
        hours: no trial is begun after so many hours of this call.
        workers: processes that try at the same time.
        seeds: how often the winner and the recipe as it is are trained and tested; 0: neither.
        lang: the language of the page, "en" or "zh".

    Raises:
        UserError: recipe, search or data are wrong.
    """
    words = Words(report_language(lang))
    if find_spec("optuna") is None:
        raise RecipeError("tuning needs Optuna, which is not installed", fix='pip install "tunewright[tune]"')
    search = _open(recipe, overrides, runs, screen)
    study = _study(search, sampler, prune)
    grid = _grid(search) if sampler == "grid" else []
    trials = min(trials, len(grid)) if grid else trials
    _foretell(search, trials, hours, workers, runs, screen)
    _take_up(study, search, grid, screen)
    children = [_worker(search, number, trials, sampler, prune, hours) for number in range(1, workers)]
    try:
        _try(study, search, trials, hours, screen)
    finally:
        for child in children:
            child.wait()
    done = [trial for trial in study.trials if trial.value is not None and trial.state.name == "COMPLETE"]
    if not done:
        raise ArtifactError(
            "no trial was finished", file=search.folder, fix="look at the notes above; more trials, or a smaller search"
        )
    best = study.best_trial
    screen.say(
        f"best of {len(study.trials)} trials: {search.metric} {best.value:.4f} on the validation rows with {_shown(best.params)}"
    )
    winner = [choice.override(_meant(choice, best.params[choice.name])) for choice in search.space]
    write_atomic(search.folder / "overrides.txt", "\n".join(winner) + "\n")
    held = _hold_against(search, winner, seeds, screen) if seeds else None
    tuned = Tuned(
        name=search.folder.name,
        metric=search.metric,
        greater=search.greater,
        space=[choice.name for choice in search.space],
        trials=[
            TrialShown(number=trial.number, params=trial.params, value=trial.value, state=trial.state.name.lower())
            for trial in study.trials
        ],
        best=best.number,
        importance=_importance(study),
        held=held,
        command=f"tunewright run {recipe} {' '.join(map(_quoted, [*overrides, *winner]))}",
    )
    write_atomic(search.folder / "tuning.html", tuning_page(words, tuned))
    screen.say(f"report: {search.folder / 'tuning.html'}")
    screen.say(f"to use it: {tuned.command}")
    return tuned


def chosen_sampler(name: str) -> Sampler:
    """The sampler of that name. Raises RecipeError when there is none."""
    if name not in get_args(Sampler):
        raise RecipeError(
            "there is no such sampler", place="--sampler", found=name, expected=", ".join(get_args(Sampler)),
            fix="leave --sampler out",
        )  # fmt: skip
    return name  # pyright: ignore[reportReturnType]  seen above


def _open(recipe: Path, overrides: list[str], runs: Path, screen: Screen) -> Search:
    loaded, _, _, base, name = read_recipe(recipe, overrides, None)
    space = choices(loaded.search)
    _require_searchable(recipe, overrides, space, loaded)
    stages = stage_recipes(loaded)
    last = stages[-1].recipe
    if any(stage.recipe.privacy is not None for stage in stages):
        raise RecipeError(
            "each trial on the training rows would spend ε again, and nothing would add them up",
            place="search",
            found="a recipe with privacy",
            fix="choose settings on public data of the same kind",
        )
    prepared = [prepare_data(stage.recipe, base, screen) for stage in stages]
    if prepared[-1].rows("valid") == 0:
        raise RecipeError(
            "trials are held against each other on validation rows, and there are none",
            place="data.split.valid",
            found=0,
            expected="a share above 0",
            fix="data.split: {valid: 0.1}",
        )
    metric = _selected_by(last)
    key = identity(loaded.model_dump(mode="json"), [part.manifest.fingerprint for part in prepared])
    folder = runs / f"{name}-tune-{key[:8]}"
    folder.mkdir(parents=True, exist_ok=True)
    greater = metric != "loss" and METRICS[metric].greater_is_better
    return Search(
        recipe=recipe, overrides=overrides, base=base, folder=folder, space=space, metric=metric, greater=greater,
        epochs=last.train.epochs,
        seed=loaded.seed, prepared=prepared,
    )  # fmt: skip


def _foretell(search: Search, trials: int, hours: float | None, workers: int, runs: Path, screen: Screen) -> None:
    """Say what the trials will take, by the plan of the recipe as it is.

    Raises:
        RecipeError: a trial cannot fit into memory.
    """
    loaded, _, _, base, _ = read_recipe(search.recipe, search.overrides, None)
    plans = plan_run(stage_recipes(loaded), search.prepared, base, runs, force=False, screen=silent())
    if not plans:
        return
    each = sum(plan.seconds.middle for plan in plans.values())
    screen.say(
        f"plan: about {duration(each)} of training a trial, {duration(each * trials / workers)} for {trials}; "
        "less where trials are cut short, more where the search makes the network larger"
    )
    if hours is not None and each * trials / workers > 3600 * hours:
        screen.warn(f"about {int(3600 * hours * workers / each):,} of {trials} trials fit into {hours:g} hours")


def _selected_by(recipe: Recipe) -> str:
    """The validation result that a training keeps its best weights by, and that trials are held against each other by."""
    task = get_task(recipe.task)
    if recipe.train.select is not None:
        return recipe.train.select
    if task.examination is not None:
        return task.examination.select or "loss"
    objective = recipe.train.objective
    unlabelled = objective is not None and parse_named(objective, "train.objective")[0] in SELF_SUPERVISED
    return "loss" if unlabelled else task.metrics[0]


def _require_searchable(recipe: Path, overrides: list[str], space: Sequence[Choice], loaded: Recipe) -> None:
    """Each value that is named, and both ends of each range, must fit the recipe's schema now, not in the tenth trial."""
    for choice in space:
        if choice.name.split(".")[0] in ("data", "eval", "search", "seed"):
            raise RecipeError(
                "trials that differ in data or evaluation cannot be held against each other",
                place=f"search.{choice.name}",
                expected="a key of model, tune or train",
                fix="take it out",
            )
        for value in choice.values:
            read_recipe(recipe, [*overrides, choice.override(value)], None)


def _study(search: Search, sampler: Sampler, prune: bool, worker: int = 0) -> Study:
    import optuna

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    storage = optuna.storages.RDBStorage(
        f"sqlite:///{(search.folder / 'study.db').resolve()}", engine_kwargs={"connect_args": {"timeout": PATIENCE}}
    )
    study = optuna.create_study(
        study_name="tune", storage=storage, load_if_exists=True, direction="maximize" if search.greater else "minimize"
    )
    seed = (
        mix(search.seed, "sampler", worker, len(study.trials)) % 2**32
    )  # who goes on, or helps, must not draw what was drawn before
    study.sampler = _sampler(sampler, seed)
    rungs = prune and search.epochs >= RUNGS_FROM
    study.pruner = (
        optuna.pruners.SuccessiveHalvingPruner(min_resource=-(-search.epochs // 4), reduction_factor=FACTOR)
        if rungs
        else optuna.pruners.NopPruner()
    )
    return study


def _sampler(sampler: Sampler, seed: int) -> BaseSampler:
    import optuna

    if sampler != "tpe":
        return optuna.samplers.RandomSampler(seed=seed)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Optuna calls these options experimental at each start
        return optuna.samplers.TPESampler(seed=seed, constant_liar=True, multivariate=True)


def _grid(search: Search) -> list[dict[str, Any]]:
    """All combinations of the lists."""
    ranges = [choice.name for choice in search.space if choice.kind != "one_of"]
    if ranges:
        raise RecipeError(
            "a grid needs lists of values",
            place=f"search.{ranges[0]}",
            found="a range",
            expected="a list",
            fix="write the values out, or --sampler tpe",
        )
    names = [choice.name for choice in search.space]
    values = [[_plain(value) for value in choice.values] for choice in search.space]
    return [dict(zip(names, found)) for found in itertools.product(*values)]


def _take_up(study: Study, search: Search, grid: list[dict[str, Any]], screen: Screen) -> None:
    """Trials that a killed process left are begun again with the same settings; the first of all is the recipe as it is, or a
    grid's in their order."""
    import optuna

    if not study.trials:
        usual = _as_it_is(search)
        for params in grid or ([usual] if usual is not None else []):
            study.enqueue_trial(params)
        return
    open_trials = [trial for trial in study.trials if trial.state == optuna.trial.TrialState.RUNNING]
    for trial in open_trials:
        study.tell(trial.number, state=optuna.trial.TrialState.FAIL)
        study.enqueue_trial(trial.params)
    finished = sum(trial.state.is_finished() for trial in study.trials) - len(open_trials)
    screen.say(f"going on with {search.folder}: {finished} trials are finished, {len(open_trials)} were cut short")


def _as_it_is(search: Search) -> dict[str, Any] | None:
    """The recipe's own values, where each lies within the search."""
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
        found[choice.name] = _plain(value) if choice.kind == "one_of" else value
    return found


def _try(study: Study, search: Search, trials: int, hours: float | None, screen: Screen) -> None:
    import optuna

    until = None if hours is None else time.monotonic() + 3600 * hours
    while (
        sum(trial.state in (optuna.trial.TrialState.COMPLETE, optuna.trial.TrialState.PRUNED) for trial in study.trials)
        < trials
    ):
        if until is not None and time.monotonic() > until:
            screen.warn(f"{hours:g} hours are over: no further trial is begun")
            return
        trial = study.ask()
        params = {choice.name: _suggested(trial, choice) for choice in search.space}
        try:
            value = _carried_out(search, trial, params)
        except LetGo as reason:
            study.tell(trial, state=optuna.trial.TrialState.PRUNED)
            screen.say(f"trial {trial.number}: {_shown(params)}: let go ({reason})")
            continue
        except (Diverged, NothingLearned) as error:
            study.tell(trial, state=optuna.trial.TrialState.PRUNED)
            screen.say(f"trial {trial.number}: {_shown(params)}: {error.problem}")
            continue
        study.tell(trial, value)
        screen.say(f"trial {trial.number}: {_shown(params)}: {search.metric} {value:.4f}")


def _suggested(trial: Trial, choice: Choice) -> Any:
    """A value as it stands in the recipe. Optuna keeps lists and mappings as their text."""
    if choice.kind == "one_of":
        found = trial.suggest_categorical(choice.name, [_plain(value) for value in choice.values])
        return _meant(choice, found)
    low, high = choice.values
    if choice.kind == "whole":
        return trial.suggest_int(choice.name, low, high)
    return trial.suggest_float(choice.name, low, high, log=choice.kind == "log")


def _meant(choice: Choice, kept: Any) -> Any:
    """What Optuna keeps, as the recipe has it."""
    return next(value for value in choice.values if _plain(value) == kept) if choice.kind == "one_of" else kept


def _plain(value: Any) -> Any:
    return value if isinstance(value, str | int | float | bool | None) else json.dumps(value)


def _carried_out(search: Search, trial: Trial, params: dict[str, Any]) -> float:
    """Train the stages; the validation result that the last one was chosen by. What a trial trained is gone afterwards."""
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
            raise LetGo(f"{search.metric} {value:.4f} after epoch {epoch}")

    try:
        for index, (stage, data) in enumerate(zip(stages, search.prepared, strict=True)):
            folder = place / stage.name
            if not (folder / "summary.json").exists():
                backbone = recipe_backbone(stage.recipe, search.base)
                job = StageJob(stage=stage, folder=folder, source=source, prepared=data, backbone=backbone)
                learn_stage(job, silent(), watch if index == len(stages) - 1 else None)
            source = folder / "model"
        best = read_json(place / stages[-1].name / "summary.json", "a trial")["training"].get("best")
    except (LetGo, Diverged, NothingLearned):
        shutil.rmtree(place, ignore_errors=True)
        raise
    if best is None:
        raise RecipeError(
            "this way of learning leaves no validation result to compare trials by",
            place="tune.method",
            expected="training by gradients",
            fix="write what moves, such as tune: {freeze: none}",
        )
    shutil.rmtree(place, ignore_errors=True)
    assert best["metric"] == search.metric
    return float(best["value"])


def _worker(
    search: Search, number: int, trials: int, sampler: str, prune: bool, hours: float | None
) -> subprocess.Popen[bytes]:
    """One more process that tries; it writes no report."""
    words = ["tune", str(search.recipe), *search.overrides, f"--trials={trials}", f"--sampler={sampler}", "--seeds=0"]
    words += (
        [f"--runs={search.folder.parent}", f"--worker={number}"]
        + ([] if prune else ["--no-prune"])
        + ([f"--hours={hours}"] if hours else [])
    )
    code = "from tunewright.cli import main; main()"
    return subprocess.Popen([sys.executable, "-c", code, *words], stdout=subprocess.DEVNULL)


def help_to_try(
    recipe: Path,
    overrides: list[str],
    *,
    number: int,
    trials: int,
    sampler: Sampler,
    prune: bool,
    hours: float | None,
    runs: Path,
) -> None:
    """What a second process does: trials, and nothing else."""
    search = _open(recipe, overrides, runs, silent())
    _try(_study(search, sampler, prune, number), search, trials, hours, silent())


def _hold_against(search: Search, winner: list[str], seeds: int, screen: Screen) -> dict[str, Any]:
    """The winner and the recipe as it is, each trained with as many seeds and tested; the difference seed by seed."""
    found: dict[str, list[float]] = {}
    for name, more in (("as it is", []), ("tuned", winner)):
        screen.say(f"{name}: {seeds} seeds")
        overrides = [*search.overrides, *more, f"eval.seeds={seeds}", f"name={'default' if not more else 'tuned'}"]
        place = search.folder / "held" / hashlib.sha256("\n".join(more).encode()).hexdigest()[:12]
        result = _finished(place) or run(search.recipe, overrides=overrides, runs=place, screen=silent()).folder
        stage = read_json(result / "run.json", "a run")["stages"][-1]
        summary = read_json(result / stage / "summary.json", "a stage")
        metric = (
            search.metric
            if search.metric in summary["evaluation"]["metrics"]
            else next(iter(summary["evaluation"]["metrics"]))
        )
        several = summary.get("seeds", {}).get("metrics", {}).get(metric, {}).get("values")
        found[name] = several or [summary["evaluation"]["metrics"][metric]["value"]]
        found.setdefault("metric", [metric])  # pyright: ignore[reportArgumentType]
    metric = str(found.pop("metric")[0])
    difference = over_seeds([b - a for a, b in zip(found["as it is"], found["tuned"], strict=True)])
    screen.say(_sentence(metric, difference))
    held = {
        "metric": metric,
        "as_it_is": found["as it is"],
        "tuned": found["tuned"],
        "difference": difference.to_json(),
    }
    write_json(search.folder / "held.json", held)
    return {**held, "sentence": _sentence(metric, difference)}


def _finished(place: Path) -> Path | None:
    """A run that was finished there before."""
    runs = [path.parent for path in place.glob("*/run.json")]
    return next((folder for folder in runs if read_json(folder / "run.json", "a run").get("complete")), None)


def _sentence(metric: str, difference: Estimate) -> str:
    value, low, high = difference.value, difference.low, difference.high
    assert value is not None
    if low is None or high is None:
        return f"tuned against as it is: {metric} {value:+.4f} on the test rows, of one seed: no interval"
    if low <= 0 <= high:
        verdict = "no real difference"
    else:
        verdict = "better" if (low > 0) == METRICS[metric].greater_is_better else "worse"
    return f"tuned against as it is: {verdict}: {metric} {value:+.4f} [{low:+.4f}, {high:+.4f}] on the test rows over seeds"


def _importance(study: Study) -> dict[str, float]:
    """How much of the differences between trials each setting explains (functional ANOVA, Hutter et al. 2014); empty where trials are
    too few to say."""
    import optuna

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return dict(optuna.importance.get_param_importances(study))
    except (ValueError, RuntimeError):
        return {}


def _shown(params: dict[str, Any]) -> str:
    return ", ".join(
        f"{name} {f'{value:.3g}' if isinstance(value, float) else _plain(value)}" for name, value in params.items()
    )


def _quoted(override: str) -> str:
    import shlex

    return shlex.quote(override)
