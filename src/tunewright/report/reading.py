"""What the report reads of a run folder: nothing but small text and JSON files, nothing outside of it.

The files may come from somebody else or from another version: what is missing or of another type than expected is
treated as absent, and never trusted to be well-formed.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tunewright.checksums import Damage, file_damage
from tunewright.errors import ArtifactError
from tunewright.notes import note
from tunewright.report.numbers import Estimate, estimate_from, number_from
from tunewright.runs.folder import Run, damage_beside, read_json
from tunewright.runs.metrics_log import read_metrics

STAGES = ("pretrain", "finetune")


@dataclass(frozen=True, kw_only=True)
class Stage:
    """One finished stage: its summary.json, and the lines of its metrics.jsonl by kind."""

    name: str
    summary: dict[str, Any]
    epochs: list[dict[str, Any]]
    steps: list[dict[str, Any]]
    samples: list[dict[str, Any]] = field(default_factory=list)

    def part(self, *keys: str) -> dict[str, Any]:
        """A part of the summary by its path; empty where there is none."""
        found: Any = self.summary
        for key in keys:
            found = mapping(found).get(key)
        return mapping(found)

    @property
    def estimates(self) -> dict[str, Estimate]:
        """What was measured on the test rows, by metric; the first is the headline."""
        return estimates(self.part("evaluation", "metrics"))

    @property
    def metric(self) -> str | None:
        """The metric that the stage is judged by."""
        return next(iter(self.estimates), None)

    @property
    def over_seeds(self) -> Estimate | None:
        """The mean of the headline metric over repetitions with other seeds, when there were any."""
        found = mapping(self.part("seeds", "metrics").get(self.metric or ""))
        return estimate_from({**found, "value": found.get("mean")}) if len(self.seed_values) > 1 else None

    @property
    def seed_values(self) -> list[float]:
        values = sequence(mapping(self.part("seeds", "metrics").get(self.metric or "")).get("values"))
        return [number for value in values if (number := number_from(value)) is not None]

    @property
    def headline(self) -> Estimate | None:
        """The one number: the mean over seeds where there are several, else the value on the test rows."""
        return self.over_seeds or (self.estimates[self.metric] if self.metric else None)

    @property
    def kept_frozen(self) -> bool | None:
        """Whether what was frozen is bit-identical to its source; None where nothing was frozen, or nobody looked."""
        certificate = self.part("certificate")
        frozen = [mapping(entry) for entry in sequence(certificate.get("frozen"))]
        if not frozen or not isinstance(certificate.get("passed"), bool):
            return None
        return certificate["passed"] and all(entry.get("identical") is True for entry in frozen)

    @property
    def baselines(self) -> list[tuple[str, dict[str, Estimate]]]:
        """Name and estimates of each baseline."""
        found = [mapping(entry) for entry in sequence(self.part("evaluation").get("baselines"))]
        return [(words_of(entry.get("name")) or "?", estimates(mapping(entry.get("metrics")))) for entry in found]


@dataclass(frozen=True, kw_only=True)
class RunFiles:
    """Everything that the report is made from."""

    name: str
    recipe: str | None
    resolved: str | None
    environment: dict[str, Any]
    stages: list[Stage]
    plan: dict[str, Any] = field(default_factory=dict)
    """What was foretold of each stage, by its name; empty: nothing was."""


def read_run(folder: Path) -> RunFiles:
    """The files of a run folder.

    Raises:
        ArtifactError: there is no finished stage in it, or a JSON file is damaged.
    """
    record = Run(folder).record if (folder / "run.json").exists() else {}
    for name, facts in mapping(record.get("files")).items():
        _tell(file_damage(folder / name, facts))
    # A name with a slash in it could lead out of the folder.
    given = [name for name in sequence(record.get("stages")) if isinstance(name, str)]
    listed = [name for name in given if Path(name).name == name and name != ".."]
    names = [name for name in dict.fromkeys(listed or STAGES) if (folder / name / "summary.json").is_file()]
    if not folder.is_dir():
        raise ArtifactError("no such run folder", file=folder, fix="name a run folder, such as runs/mnist")
    if not names:
        raise ArtifactError(
            "there is nothing to report yet: no stage has a summary.json",
            file=folder,
            expected=", ".join(f"{name}/summary.json" for name in listed or STAGES),
            fix="name a run folder, such as runs/mnist, in which a stage was finished",
        )
    for name in ["environment.json", *(f"{name}/summary.json" for name in listed if record.get("complete"))]:
        if record and not (folder / name).exists():
            note(f"{folder / name}: the file is missing; the report shows what is there")
    has_environment, has_plan = ((folder / name).exists() for name in ("environment.json", "plan.json"))
    return RunFiles(
        name=folder.resolve().name,
        recipe=_read_text(folder / "recipe.yaml"),
        resolved=_read_text(folder / "recipe.resolved.yaml"),
        environment=read_json(folder / "environment.json", "a run's environment") if has_environment else {},
        stages=[_read_stage(folder / name) for name in names],
        plan=mapping(read_json(folder / "plan.json", "a run's plan").get("stages")) if has_plan else {},
    )


def _read_stage(folder: Path) -> Stage:
    path = folder / "metrics.jsonl"
    _tell(damage_beside(folder, path.name))
    entries = read_metrics(path)
    return Stage(
        name=folder.name,
        summary=read_json(folder / "summary.json", "the summary of a stage"),
        epochs=[entry for entry in entries if entry.get("kind") == "epoch" and number_from(entry.get("epoch"))],
        steps=[entry for entry in entries if entry.get("kind") == "step"],
        samples=[entry for entry in entries if entry.get("kind") == "sample"],
    )


def _tell(damage: Damage | None) -> None:
    if damage is not None:
        note(f"{damage}; the report shows what is there")


def _read_text(path: Path) -> str | None:
    return path.read_text(encoding="utf-8", errors="replace") if path.exists() else None


def mapping(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def sequence(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def words_of(value: Any) -> str | None:
    """A text that says something; None for anything else."""
    return value if isinstance(value, str) and value.strip() else None


def shown(value: Any, limit: int = 200) -> str:
    """Any JSON value on one line of at most so many characters."""
    written = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    written = " ".join(written.split())
    return written if len(written) <= limit else written[: limit - 1] + "…"


def named(value: Any) -> str | None:
    """A thing that the recipe chose by name, with its options: "sgd (momentum 0.9)"."""
    if isinstance(value, dict) and len(value) == 1:
        ((name, options),) = value.items()
        inner = ", ".join(f"{key} {shown(option)}" for key, option in mapping(options).items())
        return f"{name} ({inner})" if inner else str(name)
    return words_of(value)


def estimates(value: dict[str, Any]) -> dict[str, Estimate]:
    """The estimates that have a value, by metric."""
    return {metric: found for metric, entry in value.items() if (found := estimate_from(entry)) is not None}
