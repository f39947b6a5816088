"""`tunewright tune`: look for better settings on the validation rows alone, then hold the best against the recipe as it is.

Trials are Optuna's and stand in a file, `study.db`; what a trial trains is a run's stages without their evaluation. A search that was
killed goes on: finished trials count, and one that was cut short is taken up at its newest checkpoint. No trial ever sees a test row;
those are looked at once, when the winner and the recipe as it is are trained with several seeds.
"""

from __future__ import annotations

import shlex
import warnings
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
    Sampler,
    as_in_recipe,
    grid_of,
    open_study,
    settings_shown,
    start_worker,
    take_up,
    try_out,
)
from tunewright.tuning.verify_winner import hold_against
from tunewright.units import duration

if TYPE_CHECKING:
    from optuna import Study


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
    screen: Console,
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
    search = open_search(recipe, overrides, runs, screen)
    study = open_study(search, sampler, prune)
    grid = grid_of(search) if sampler == "grid" else []
    trials = min(trials, len(grid)) if grid else trials
    _foretell(search, trials, hours, workers, runs, screen)
    take_up(study, search, grid, screen)
    children = [start_worker(search, number, trials, sampler, prune, hours) for number in range(1, workers)]
    try:
        try_out(study, search, trials, hours, screen)
    finally:
        for child in children:
            child.wait()
    done = [trial for trial in study.trials if trial.value is not None and trial.state.name == "COMPLETE"]
    if not done:
        raise ArtifactError(
            "no trial was finished", file=search.folder, fix="look at the notes above; more trials, or a smaller search"
        )
    best = study.best_trial
    screen.info(
        f"best of {len(study.trials)} trials: {search.metric} {best.value:.4f} on the validation rows with {settings_shown(best.params)}"
    )
    winner = [choice.override(as_in_recipe(choice, best.params[choice.name])) for choice in search.space]
    write_atomic(search.folder / "overrides.txt", "\n".join(winner) + "\n")
    held = hold_against(search, winner, seeds, screen) if seeds else None
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
        command=f"tunewright run {recipe} {shlex.join([*overrides, *winner])}",
    )
    write_atomic(search.folder / "tuning.html", tuning_page(words, tuned))
    screen.info(f"report: {search.folder / 'tuning.html'}")
    screen.info(f"to use it: {tuned.command}")
    return tuned


def _foretell(search: Search, trials: int, hours: float | None, workers: int, runs: Path, screen: Console) -> None:
    """Say what the trials will take, by the plan of the recipe as it is.

    Raises:
        RecipeError: a trial cannot fit into memory.
    """
    loaded, _, _, base, _ = read_recipe(search.recipe, search.overrides, None)
    plans = plan_run(stage_recipes(loaded), search.prepared, base, runs, force=False, screen=silent())
    if not plans:
        return
    each = sum(plan.seconds.middle for plan in plans.values())
    screen.info(
        f"plan: about {duration(each)} of training a trial, {duration(each * trials / workers)} for {trials}; "
        "less where trials are cut short, more where the search makes the network larger"
    )
    if hours is not None and each * trials / workers > 3600 * hours:
        screen.warning(f"about {int(3600 * hours * workers / each):,} of {trials} trials fit into {hours:g} hours")


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
