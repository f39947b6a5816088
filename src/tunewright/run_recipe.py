"""Run all stages of a recipe in order, evaluate and report them; resume a run that was killed."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from tunewright.console import Console
from tunewright.data.prepared import Prepared
from tunewright.errors import RecipeError
from tunewright.files import require_writable, resumable, write_record
from tunewright.hardware.resource_model import StagePlan
from tunewright.models.backbone import Backbone
from tunewright.pipeline.build.prepare_data import prepare_data
from tunewright.pipeline.build.privacy_rules import require_private
from tunewright.pipeline.environment import describe_environment
from tunewright.pipeline.identity import identify
from tunewright.pipeline.read_recipe import command_of, given_weights, read_recipe
from tunewright.pipeline.results.controls import require_controls, run_controls
from tunewright.pipeline.results.evaluate_stage import evaluate_stage
from tunewright.pipeline.results.other_data import prepare_beside
from tunewright.pipeline.results.seeds_and_targets import judge_targets, require_targets, summarise_seeds
from tunewright.pipeline.stage import StageJob, recipe_backbone
from tunewright.pipeline.strategies.private import forget_key
from tunewright.pipeline.summary.known_texts import warn_of_known_texts
from tunewright.pipeline.summary.privacy_lineage import starting_lineage, warn_of_lost_promises
from tunewright.pipeline.train.methods import is_learned, learn_stage
from tunewright.planning.preflight import plan_run, record_actual
from tunewright.recipe.output import resolved_yaml
from tunewright.recipe.schema import Recipe
from tunewright.recipe.stages import StageRecipe, stage_recipes
from tunewright.report.page import write_report
from tunewright.runs.folder import Run, open_run, read_json, read_or_forget
from tunewright.runs.records import to_json
from tunewright.runs.summary.stage import read_summary
from tunewright.training.distributed.process_group import ProcessGroup


@dataclass(frozen=True, kw_only=True)
class StageResult:
    """Hold a finished stage: its folder, and its summary."""

    folder: Path
    summary: dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class RunResult:
    """Hold the result of a run: its folder, its stages and its report."""

    folder: Path
    stages: dict[str, StageResult] = field(default_factory=dict)
    report: Path | None = None


def run(
    recipe: Recipe | dict[str, Any] | str | Path,
    *,
    overrides: list[str] | None = None,
    base: Path | str | None = None,
    runs: Path | str = "runs",
    until: str | None = None,
    plan: bool = False,
    force: bool = False,
    lang: str = "en",
    console: Console | None = None,
    group: ProcessGroup | None = None,
) -> RunResult:
    """Run a recipe: train each stage, evaluate it, write the report.

    The same recipe on the same data resumes where it was stopped or killed. A finished run is never modified: running
    its recipe again creates a new folder.

    Args:
        recipe: a recipe file, a dict with the same content, or a `Recipe`.
        overrides: changes by dotted name, such as "train.lr=1e-4".
        base: the folder of relative data paths; default: the recipe file's folder, or the current one.
        runs: the folder of all runs.
        until: stop after the last stage of this kind, "pretrain" or "finetune".
        plan: first predict what each stage will need, and compare it with what the stage took.
        force: with `plan`, start even if a stage cannot fit into memory.
        lang: the report's language, "en" or "zh".
        group: the processes that train together, of which this is the first; see `carried_out`.

    Raises:
        UserError: the recipe or the data is wrong, or the plan does not fit.
        RunFailed: training diverged, was stopped, or a target of `eval.target` was missed.
    """
    console = console or Console()
    loaded, given, text, base, name = read_recipe(recipe, overrides or [], base)
    stages = stage_recipes(loaded)
    _require_stages(stages, loaded, until)
    files = {"recipe.yaml": text, "recipe.resolved.yaml": resolved_yaml(loaded, given)}
    record = {
        "name": name,
        "stages": [stage.name for stage in stages],
        "seeds": loaded.eval.seeds,
        "base": str(base.resolve()),
        "command": command_of(recipe, overrides or []),
    }
    # Changing the number of processes, the strategy or the trackers does not change the run's identity.
    other = {"hardware": {"devices", "nodes", "strategy", "tensor", "offload"}, "track": True}
    resolved = loaded.model_dump(mode="json", exclude=other)
    with resumable(Path(runs) / name):
        require_writable(Path(runs))
        prepared = [prepare_data(stage.recipe, base, console) for stage in stages]
        beside = [prepare_beside(stage.recipe, base, console) for stage in stages]
        backbones = [recipe_backbone(stage.recipe, base) for stage in stages]
        plans = plan_run(stages, prepared, base, Path(runs), force=force, console=console) if plan else {}
        others = [part for found in beside for part in found.values()]
        known = identify(resolved, stages, [*prepared, *others], backbones, base)
        with open_run(Path(runs), name, known, files, record, console.warning) as (opened, goes_on):
            console.log = opened.log
            console.info(f"{'resuming' if goes_on else 'run'} {opened.folder}")
            if read_or_forget(opened.folder / "environment.json", "a run's environment") is None:
                write_record(opened.folder / "environment.json", to_json(describe_environment(base, prepared)))
            if plans:
                planned = {name: {**asdict(made), "fits": made.fits} for name, made in plans.items()}
                write_record(opened.folder / "plan.json", {"stages": planned})
            return _carry_out(
                opened, loaded, stages, prepared, beside, backbones, plans, base, until, lang, console, group
            )


def _require_stages(stages: list[StageRecipe], recipe: Recipe, until: str | None) -> None:
    """Check all stages as far as the recipe alone allows, before the first of them is trained."""
    if until is not None and until not in {stage.kind for stage in stages}:
        raise RecipeError(
            f"the recipe has no {until} stage",
            place="stages",
            found=", ".join(stage.name for stage in stages),
            fix=f"add it to the recipe's `stages`, such as `stages: [pretrain, {until}]`, or use `tunewright run`",
        )
    for stage in stages:
        require_private(stage.recipe, recipe.eval.seeds)


def _carry_out(
    opened: Run,
    recipe: Recipe,
    stages: list[StageRecipe],
    prepared: list[Prepared],
    beside: list[dict[str, Prepared]],
    backbones: list[Backbone | None],
    plans: dict[str, StagePlan],
    base: Path,
    until: str | None,
    lang: str,
    console: Console,
    group: ProcessGroup | None,
) -> RunResult:
    for stage, backbone in zip(stages, backbones, strict=True):
        require_controls(stage.recipe, backbone is not None and not backbone.own)
    warn_of_known_texts(stages, prepared, console)
    first = StageJob(
        stage=stages[0],
        folder=opened.stage_folder(stages[0].name),
        source=given_weights(stages[0].recipe, base),
        prepared=prepared[0],
        backbone=backbones[0],
        group=group,
    )
    warn_of_lost_promises(stages, prepared, starting_lineage(first), console)
    last = len(stages) if until is None else max(i for i, stage in enumerate(stages) if stage.kind == until) + 1
    for replica in range(recipe.eval.seeds):
        source = given_weights(stages[0].recipe, base)
        if replica:
            console.info(f"seed {recipe.seed + replica}")
        for stage, data, others, backbone in list(zip(stages, prepared, beside, backbones, strict=True))[:last]:
            seeded = with_seed(stage, recipe.seed + replica)
            folder = opened.stage_folder(stage.name, replica=replica)
            job = replace(
                first, stage=seeded, folder=folder, source=source, prepared=data, backbone=backbone, beside=others
            )
            if not is_learned(folder):
                learn_stage(job, console)
                if replica == 0 and stage.name in plans:
                    record_actual(plans[stage.name], folder, opened.folder.name)
            forget_key(folder)
            if read_summary(folder).files is None:
                evaluate_stage(job, console, full=replica == 0)
            if replica == 0 and seeded.recipe.eval.controls:
                run_controls(job, console)
            source = folder / "model"
    done = stages[:last]
    summarise_seeds(opened, done, recipe.eval.seeds)
    judge_targets(opened, done)
    report = write_report(opened.folder, lang=lang)
    if last == len(stages):
        opened.mark_complete()
    console.info(f"report: {report}")
    results = _results_of(opened, done)
    require_targets({stage.name: read_summary(opened.stage_folder(stage.name)) for stage in done})
    return RunResult(folder=opened.folder, stages=results, report=report)


def _results_of(opened: Run, done: list[StageRecipe]) -> dict[str, StageResult]:
    """Return each stage's folder and summary."""
    folders = {stage.name: opened.stage_folder(stage.name) for stage in done}
    return {
        name: StageResult(folder=folder, summary=read_json(folder / "summary.json", "a stage's summary"))
        for name, folder in folders.items()
    }


def with_seed(stage: StageRecipe, seed: int) -> StageRecipe:
    """Return the stage with another seed for everything but the split, which uses the recipe's own seed."""
    return StageRecipe(name=stage.name, kind=stage.kind, recipe=stage.recipe.model_copy(update={"seed": seed}))
