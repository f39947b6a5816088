"""Read a run folder for its report: small text and JSON files, and nothing outside of the folder.

The files may be a stranger's, or another version's. What is missing has no section; what is damaged is an error that names it.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tunewright.checksums import Damage, file_damage
from tunewright.errors import ArtifactError
from tunewright.evaluation.metrics import facts_of
from tunewright.notes import note
from tunewright.report.numbers import Figure, figure
from tunewright.runs.metrics_log import Curves, read_curves
from tunewright.runs.run_files import (
    Environment,
    Plan,
    RunListing,
    read_environment,
    read_listing,
    read_plan,
)
from tunewright.runs.summary.evaluation import BaselineSummary, EvaluationSummary
from tunewright.runs.summary.facts import MetricFacts
from tunewright.runs.summary.stage import SUMMARY_FILE, StageSummary, damage_beside, read_summary

STAGES = ("pretrain", "finetune")


@dataclass(frozen=True, kw_only=True)
class Stage:
    """One finished stage: its summary, and its training curves."""

    name: str
    summary: StageSummary
    curves: Curves = field(default_factory=Curves)

    def metric(self, name: str) -> MetricFacts:
        """Return what is known of a metric: by the summary, or by the metric that is installed."""
        return self.summary.metric_facts.get(name) or facts_of(name)

    @property
    def evaluation(self) -> EvaluationSummary | None:
        """None: the stage was not evaluated."""
        return self.summary.evaluation

    @property
    def figures(self) -> dict[str, Figure]:
        """What was measured, by metric, without what is not defined; the first is the headline."""
        if self.evaluation is None:
            return {}
        return {name: found for name, entry in self.evaluation.metrics.items() if (found := figure(entry))}

    @property
    def headline_metric(self) -> MetricFacts | None:
        """The metric that the stage is judged by."""
        name = next(iter(self.figures), None)
        return None if name is None else self.metric(name)

    @property
    def over_seeds(self) -> Figure | None:
        """The mean of the headline metric over seeds, where there are several."""
        if self.headline_metric is None or self.summary.seeds is None or len(self.seed_values) < 2:
            return None
        found = self.summary.seeds.metrics[self.headline_metric.name]
        return None if found.mean is None else Figure(value=found.mean, low=found.low, high=found.high)

    @property
    def seed_values(self) -> list[float]:
        """The headline metric of each seed."""
        seeds, metric = self.summary.seeds, self.headline_metric
        if seeds is None or metric is None or metric.name not in seeds.metrics:
            return []
        return seeds.metrics[metric.name].values

    @property
    def headline(self) -> Figure | None:
        """The one number: the mean over seeds where there are several, else the value on the test rows."""
        return self.over_seeds or next(iter(self.figures.values()), None)

    def baselines(self, metric: MetricFacts) -> list[tuple[BaselineSummary, Figure]]:
        """Return the baselines that were measured by a metric, with their figures."""
        known = self.evaluation.baselines if self.evaluation is not None else []
        return [(entry, found) for entry in known if (found := figure(entry.metrics.get(metric.name)))]

    @property
    def source(self) -> str:
        """The name of its data."""
        return self.summary.data.source


@dataclass(frozen=True, kw_only=True)
class RunFiles:
    """Everything that a report is made from."""

    name: str
    recipe: str | None
    resolved: str | None
    environment: Environment | None
    stages: list[Stage]
    plan: Plan = field(default_factory=Plan)
    """What was predicted of each stage."""


def read_run(folder: Path) -> RunFiles:
    """Return the files of a run folder.

    Raises:
        ArtifactError: there is no finished stage in it, or a file is damaged.
    """
    if not folder.is_dir():
        raise ArtifactError("no such run folder", file=folder, fix="name a run folder, such as runs/mnist")
    has_record = (folder / "run.json").exists()
    listing = read_listing(folder / "run.json") if has_record else RunListing()
    for name, facts in listing.files.items():
        _note_damage(file_damage(folder / name, vars(facts)))
    listed = listing.stage_names
    names = [name for name in listed or STAGES if (folder / name / SUMMARY_FILE).is_file()]
    if not names:
        raise ArtifactError(
            f"there is nothing to report yet: no stage has a {SUMMARY_FILE}",
            file=folder,
            expected=", ".join(f"{name}/{SUMMARY_FILE}" for name in listed or STAGES),
            fix="name a run folder, such as runs/mnist, in which a stage was finished",
        )
    for name in ["environment.json", *(f"{name}/{SUMMARY_FILE}" for name in listed if listing.complete)]:
        if has_record and not (folder / name).exists():
            note(f"{folder / name}: the file is missing; the report shows what is there")
    environment, plan = folder / "environment.json", folder / "plan.json"
    return RunFiles(
        name=folder.resolve().name,
        recipe=_read_text(folder / "recipe.yaml"),
        resolved=_read_text(folder / "recipe.resolved.yaml"),
        environment=read_environment(environment) if environment.exists() else None,
        stages=[_read_stage(folder / name) for name in names],
        plan=read_plan(plan) if plan.exists() else Plan(),
    )


def _read_stage(folder: Path) -> Stage:
    path = folder / "metrics.jsonl"
    _note_damage(damage_beside(folder, path.name))
    return Stage(name=folder.name, summary=read_summary(folder), curves=read_curves(path))


def _note_damage(damage: Damage | None) -> None:
    if damage is not None:
        note(f"{damage}; the report shows what is there")


def _read_text(path: Path) -> str | None:
    return path.read_text(encoding="utf-8", errors="replace") if path.exists() else None


def shown(value: Any, limit: int = 200) -> str:
    """Write any value on one line of at most so many characters."""
    written = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    written = " ".join(written.split())
    return written if len(written) <= limit else written[: limit - 1] + "…"


def with_options(value: str | dict[str, Any]) -> str:
    """Write a thing that the recipe chose by name, with its options: "sgd (momentum 0.9)"."""
    if isinstance(value, str):
        return value
    parts: list[str] = []
    for name, options in value.items():
        inner = (
            ", ".join(f"{key} {shown(option)}" for key, option in options.items()) if isinstance(options, dict) else ""
        )
        parts.append(f"{name} ({inner})" if inner else name)
    return ", ".join(parts)
