"""Combine the results of several seeds, and compare them with the targets of the recipe."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from tunewright.errors import TargetMissed
from tunewright.evaluation.intervals import over_seeds
from tunewright.evaluation.metrics import METRICS
from tunewright.recipe.stages import StageRecipe
from tunewright.runs.folder import Run
from tunewright.runs.summary.evaluation import SeedFigures, SeedSummary, TargetSummary
from tunewright.runs.summary.stage import StageSummary, read_summary, write_summary


def summarise_seeds(run: Run, stages: list[StageRecipe], seeds: int) -> None:
    """Add mean and interval over the seeds to each stage's summary, once all of them are measured."""
    if seeds < 2:
        return
    for stage in stages:
        folder = run.stage_folder(stage.name)
        summary = read_summary(folder)
        if summary.evaluation is None or summary.seeds is not None:
            continue
        each = [read_summary(run.stage_folder(stage.name, replica=k)).evaluation for k in range(seeds)]
        metrics: dict[str, SeedFigures] = {}
        for name in summary.evaluation.metrics:
            found = [one.metrics[name].value for one in each if one is not None]
            values = [value for value in found if value is not None]
            if len(values) == seeds:
                mean = over_seeds(values)
                metrics[name] = SeedFigures(values=values, mean=mean.value, low=mean.low, high=mean.high)
        write_summary(folder, replace(summary, seeds=SeedSummary(count=seeds, metrics=metrics)))


def judge_targets(run: Run, stages: list[StageRecipe]) -> None:
    """Compare each stage's figures (the mean over seeds, where there are several) with its `eval.target`."""
    for stage in stages:
        folder = run.stage_folder(stage.name)
        summary = read_summary(folder)
        judged: dict[str, TargetSummary] = {}
        for name, bound in stage.recipe.eval.target.items():
            value = reached_value(summary, name)
            if value is not None:
                good = value >= bound if METRICS[name].greater_is_better else value <= bound
                judged[name] = TargetSummary(wanted=bound, value=value, reached=good)
        write_summary(folder, replace(summary, target=judged))


def require_targets(summaries: Mapping[str, StageSummary]) -> None:
    """Raises TargetMissed, naming each figure that was not reached."""
    missed = [
        f"{stage}: {name} {entry.value:.4f} instead of {entry.wanted:g}"
        for stage, summary in summaries.items()
        for name, entry in (summary.target or {}).items()
        if not entry.reached
    ]
    if missed:
        raise TargetMissed(
            "the target was missed",
            place="eval.target",
            found="; ".join(missed),
            fix="the report's hint says what would help most",
        )


def reached_value(summary: StageSummary, metric: str) -> float | None:
    """Return a stage's figure: the mean over seeds, where there are several; None where it was not measured."""
    if summary.seeds is not None and metric in summary.seeds.metrics:
        return summary.seeds.metrics[metric].mean
    found = summary.evaluation.metrics.get(metric) if summary.evaluation is not None else None
    return None if found is None else found.value
