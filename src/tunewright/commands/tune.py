"""Run `tunewright tune`: search for better hyperparameters on the validation rows, then test the winner against the unchanged recipe.

Optuna stores the trials in `study.db`; a trial trains a run's stages without their evaluation. A search that was
killed can be resumed: finished trials count, and an interrupted one continues from its newest checkpoint. No trial sees a test row;
the test is evaluated once, when the winner and the unchanged recipe are trained with several seeds.
"""

from __future__ import annotations

import shlex
import warnings
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from tunewright.console import Console, silent
from tunewright.errors import ArtifactError, RecipeError
from tunewright.files import write_atomic
from tunewright.pipeline.read_recipe import read_recipe
from tunewright.planning.preflight import plan_run
from tunewright.recipe.stages import stage_recipes
from tunewright.report.translations import Words, report_language
from tunewright.report.tuning import TrialShown, Tuned, tuning_page
from tunewright.tuning.search import Search, open_search
from tunewright.tuning.trials import (
    SearchSettings,
    format_settings,
    from_optuna,
    full_grid,
    open_study,
    resume_trials,
    run_trials,
    start_worker,
)
from tunewright.tuning.verify_winner import verify_winner
from tunewright.units import duration

if TYPE_CHECKING:
    from optuna import Study


def tune(
    recipe: Path,
    overrides: list[str],
    settings: SearchSettings,
    *,
    seeds: int = 3,
    runs: Path = Path("runs"),
    lang: str = "en",
    console: Console,
) -> Tuned:
    """Search, then compare.

    Args:
        seeds: how often the winner and the unchanged recipe are trained and tested; 0: neither.
        lang: the language of the page, "en" or "zh".

    Raises:
        UserError: recipe, search or data are wrong.
    """
    words = Words(report_language(lang))
    if find_spec("optuna") is None:
        raise RecipeError("tuning needs Optuna, which is not installed", fix='pip install "tunewright[tune]"')
    search = open_search(recipe, overrides, runs, console)
    study = open_study(search, settings)
    grid = full_grid(search) if settings.sampler == "grid" else []
    if grid:
        settings = replace(settings, trials=min(settings.trials, len(grid)))
    _predict_time(search, settings, runs, console)
    resume_trials(study, search, grid, console)
    children = [start_worker(search, number, settings) for number in range(1, settings.workers)]
    try:
        run_trials(study, search, settings, console)
    finally:
        for child in children:
            child.wait()
    winner = _winner(study, search, console)
    held = verify_winner(search, winner, seeds, console) if seeds else None
    tuned = Tuned(
        name=search.folder.name,
        metric=search.metric,
        greater=search.greater,
        space=[choice.name for choice in search.space],
        trials=[
            TrialShown(number=trial.number, params=trial.params, value=trial.value, state=trial.state.name.lower())
            for trial in study.trials
        ],
        best=study.best_trial.number,
        importance=_importance(study),
        held=held,
        command=f"tunewright run {recipe} {shlex.join([*overrides, *winner])}",
    )
    write_atomic(search.folder / "tuning.html", tuning_page(words, tuned))
    console.info(f"report: {search.folder / 'tuning.html'}")
    console.info(f"to use it: {tuned.command}")
    return tuned


def _winner(study: Study, search: Search, console: Console) -> list[str]:
    """Report the best trial, and write and return its overrides of the recipe.

    Raises:
        ArtifactError: no trial was finished.
    """
    done = [trial for trial in study.trials if trial.value is not None and trial.state.name == "COMPLETE"]
    if not done:
        raise ArtifactError(
            "no trial was finished", file=search.folder, fix="see the notes above; try more trials, or a smaller search"
        )
    best = study.best_trial
    console.info(
        f"best of {len(study.trials)} trials: {search.metric} {best.value:.4f} on the validation rows with {format_settings(best.params)}"
    )
    winner = [choice.override(from_optuna(choice, best.params[choice.name])) for choice in search.space]
    write_atomic(search.folder / "overrides.txt", "\n".join(winner) + "\n")
    return winner


def _predict_time(search: Search, settings: SearchSettings, runs: Path, console: Console) -> None:
    """Predict the time of the trials, by the plan of the unchanged recipe.

    Raises:
        RecipeError: a trial cannot fit into memory.
    """
    loaded, _, _, base, _ = read_recipe(search.recipe, search.overrides, None)
    plans = plan_run(stage_recipes(loaded), search.prepared, base, runs, force=False, console=silent())
    if not plans:
        return
    each = sum(plan.seconds.middle for plan in plans.values())
    trials, hours, workers = settings.trials, settings.hours, settings.workers
    console.info(
        f"plan: about {duration(each)} of training per trial, {duration(each * trials / workers)} for {trials}; "
        "less if trials are pruned, more if the search makes the network larger"
    )
    if hours is not None and each * trials / workers > 3600 * hours:
        console.warning(f"about {int(3600 * hours * workers / each):,} of {trials} trials fit into {hours:g} hours")


def _importance(study: Study) -> dict[str, float]:
    """Return the importance of each hyperparameter (functional ANOVA, Hutter et al. 2014); empty if there are too few
    trials."""
    import optuna

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return dict(optuna.importance.get_param_importances(study))
    except (ValueError, RuntimeError):
        return {}
