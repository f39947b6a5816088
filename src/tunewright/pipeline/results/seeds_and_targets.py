"""Combine the results of several seeds, and compare them with the targets of the recipe."""

from __future__ import annotations

from typing import Any

from tunewright.errors import TargetMissed
from tunewright.evaluation.intervals import over_seeds
from tunewright.evaluation.metrics import METRICS
from tunewright.files import write_record
from tunewright.recipe.stages import StageRecipe
from tunewright.runs.folder import Run, read_json


def summarise_seeds(run: Run, stages: list[StageRecipe], seeds: int) -> None:
    """Mean and interval over the seeds into each stage's summary, once all of them are measured."""
    if seeds < 2:
        return
    for stage in stages:
        path = run.stage_folder(stage.name) / "summary.json"
        summary = read_json(path, "a stage's summary")
        found = [
            read_json(run.stage_folder(stage.name, replica=k) / "summary.json", "a stage's summary")["evaluation"]
            for k in range(seeds)
        ]
        if summary["evaluation"] is None or "seeds" in summary:
            continue
        metrics: dict[str, Any] = {}
        for name in summary["evaluation"]["metrics"]:
            values = [entry["metrics"][name]["value"] for entry in found]
            if all(value is not None for value in values):
                estimate = over_seeds(values)
                metrics[name] = {"values": values, "mean": estimate.value, "low": estimate.low, "high": estimate.high}
        write_record(path, {**summary, "seeds": {"count": seeds, "metrics": metrics}})


def judge_targets(run: Run, stages: list[StageRecipe]) -> None:
    """Hold each stage's figures (the mean over seeds, where there are several) against its `eval.target`."""
    for stage in stages:
        path = run.stage_folder(stage.name) / "summary.json"
        summary = read_json(path, "a stage's summary")
        judged: dict[str, Any] = {}
        for name, bound in stage.recipe.eval.target.items():
            value = reached_value(summary, name)
            if value is not None:
                good = value >= bound if METRICS[name].greater_is_better else value <= bound
                judged[name] = {"wanted": bound, "value": value, "reached": good}
        write_record(path, {**summary, "target": judged})


def require_targets(summaries: dict[str, dict[str, Any]]) -> None:
    """Raises TargetMissed, naming each figure that was not reached."""
    missed = [
        f"{stage}: {name} {entry['value']:.4f} instead of {entry['wanted']:g}"
        for stage, summary in summaries.items()
        for name, entry in summary["target"].items()
        if not entry["reached"]
    ]
    if missed:
        raise TargetMissed(
            "the target was missed",
            place="eval.target",
            found="; ".join(missed),
            fix="the report's hint says what would help most",
        )


def reached_value(summary: dict[str, Any], metric: str) -> float | None:
    """A stage's figure: the mean over seeds, where there are several; None for a stage without labels."""
    if summary.get("evaluation") is None:
        return None
    seeds = summary.get("seeds")
    if seeds and metric in seeds["metrics"]:
        return seeds["metrics"][metric]["mean"]
    return summary["evaluation"]["metrics"].get(metric, {}).get("value")
