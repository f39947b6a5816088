"""Run `tunewright evaluate RUN`: evaluate a run's models again, with other metrics, slices or resamples; nothing is trained."""

from __future__ import annotations

from pathlib import Path

from tunewright.console import Console
from tunewright.errors import ArtifactError, RecipeError
from tunewright.models.hub.untrusted_files import require_undamaged
from tunewright.pipeline.build.prepare_data import prepare_data
from tunewright.pipeline.read_recipe import given_weights
from tunewright.pipeline.results.controls import run_controls
from tunewright.pipeline.results.evaluate_stage import evaluate_stage
from tunewright.pipeline.results.other_data import prepare_beside
from tunewright.pipeline.results.seeds_and_targets import judge_targets, require_targets, summarise_seeds
from tunewright.pipeline.stage import StageJob, recipe_backbone
from tunewright.recipe.loading import load_recipe
from tunewright.recipe.stages import stage_recipes
from tunewright.report.page import write_report
from tunewright.run_recipe import with_seed
from tunewright.runs.folder import Run
from tunewright.runs.summary.stage import SUMMARY_FILE, read_summary, write_summary
from tunewright.tasks.registry import get_task, task_defaults


def evaluate_run(folder: Path, overrides: list[str], *, console: Console | None = None) -> None:
    """Evaluate every trained stage of a run again and write its report.

    Raises:
        RecipeError: an override that does not change `eval`.
        ArtifactError: the folder is not a run, or nothing in it is trained yet.
        TargetMissed: a target of `eval.target` was not reached.
    """
    console = console or Console()
    run = Run(folder)
    other = [override for override in overrides if not override.startswith("eval.")]
    if other:
        raise RecipeError(
            "only `eval` can be changed after training",
            place=f"override {other[0]!r}",
            expected="eval.KEY=VALUE",
            fix="for anything else, run the recipe with the override",
        )
    recipe = load_recipe(run.recipe, overrides, defaults=task_defaults)
    base = Path(run.told("base"))
    complete = run.record.get("complete")
    stages = [
        stage for stage in stage_recipes(recipe) if complete or (run.stage_folder(stage.name) / SUMMARY_FILE).exists()
    ]
    if not stages:
        raise ArtifactError("no stage of this run is trained yet", file=folder, fix="tunewright run RECIPE")
    seeds = range(run.told("seeds"))
    for place in (run.stage_folder(stage.name, replica=replica) for replica in seeds for stage in stages):
        read_summary(place)
        require_undamaged(place / "model")
    for replica in seeds:
        source = given_weights(stages[0].recipe, base)
        for stage in stages:
            seeded = with_seed(stage, recipe.seed + replica)
            place = run.stage_folder(stage.name, replica=replica)
            prepared = prepare_data(stage.recipe, base, console)
            # Only such tasks also evaluate the model that the stage started from.
            looks_back = get_task(stage.recipe.task).evaluation.compares_with_start
            backbone = recipe_backbone(stage.recipe, base) if looks_back else None
            job = StageJob(
                stage=seeded,
                folder=place,
                source=source,
                prepared=prepared,
                backbone=backbone,
                beside=prepare_beside(stage.recipe, base, console),
            )
            evaluate_stage(job, console, full=replica == 0)
            if replica == 0 and (place / "controls").exists():
                _forget_controls(place)
                run_controls(job, console)
            source = place / "model"
    summarise_seeds(run, stages, len(seeds))
    judge_targets(run, stages)
    console.info(f"report: {write_report(folder)}")
    require_targets({stage.name: read_summary(run.stage_folder(stage.name)) for stage in stages})


def _forget_controls(stage: Path) -> None:
    """Delete the results from the summaries of a stage's ablations, so that they are evaluated again."""
    for path in stage.glob(f"controls/*/{SUMMARY_FILE}"):
        write_summary(path.parent, read_summary(path.parent).unmeasured)
