"""The small files of a run folder besides its stages, as others read them: run.json, environment.json, plan.json."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from tunewright.runs.folder import read_json
from tunewright.runs.records import Amount, Count, from_json


@dataclass(frozen=True, kw_only=True)
class FileFacts:
    """A file as it was written."""

    bytes: Count
    sha256: str


@dataclass(frozen=True, kw_only=True)
class RunListing:
    """What run.json says of the run's files."""

    stages: list[str] = field(default_factory=list)
    """In order, finished or not."""
    complete: bool = False
    files: dict[str, FileFacts] = field(default_factory=dict)

    @property
    def stage_names(self) -> list[str]:
        """The stages whose names stay inside of the folder."""
        return [name for name in dict.fromkeys(self.stages) if Path(name).name == name and name != ".."]


@dataclass(frozen=True, kw_only=True)
class DataFile:
    """A data file that the run read."""

    path: str
    sha256: str
    bytes: Count = 0


@dataclass(frozen=True, kw_only=True)
class Environment:
    """What a run depended on besides its recipe."""

    python: str | None = None
    platform: str | None = None
    processor: str | None = None
    cores: Count | None = None
    memory_bytes: Count | None = None
    accelerators: list[str] = field(default_factory=list)
    threads: Count | None = None
    packages: dict[str, str] = field(default_factory=dict)
    """Versions by name."""
    data: list[DataFile] = field(default_factory=list)
    git_commit: str | None = None
    """Of the recipe's folder."""


@dataclass(frozen=True, kw_only=True)
class PlannedSpan:
    """A predicted number with its range."""

    low: Amount
    middle: Amount
    high: Amount


@dataclass(frozen=True, kw_only=True)
class PlannedStage:
    """What was predicted of a stage before it began."""

    seconds: PlannedSpan | None = None
    """Of the training."""
    process: PlannedSpan | None = None
    """Bytes of the process."""
    peak: Amount | None = None
    """Bytes of tensors."""
    energy: PlannedSpan | None = None
    """Kilowatt hours."""
    basis: str | None = None
    """How the time was predicted."""


@dataclass(frozen=True, kw_only=True)
class Plan:
    """The stages that were planned, by name."""

    stages: dict[str, PlannedStage] = field(default_factory=dict)


def read_listing(path: Path) -> RunListing:
    """Return what a run.json says. Raises ArtifactError when it is damaged."""
    return from_json(RunListing, read_json(path, "a run folder of Tunewright"), file=path)


def read_environment(path: Path) -> Environment:
    """Return what an environment.json says. Raises ArtifactError when it is damaged."""
    return from_json(Environment, read_json(path, "a run's environment"), file=path)


def read_plan(path: Path) -> Plan:
    """Return what a plan.json says. Raises ArtifactError when it is damaged."""
    return from_json(Plan, read_json(path, "a run's plan"), file=path)
