"""summary.json: everything that is known of a finished stage.

A stage writes it when its model is saved; evaluation, repetitions with other seeds and controls add to it. Reports, cards and
other commands read it.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from tunewright.checksums import Damage, file_damage
from tunewright.files import write_record
from tunewright.runs.folder import read_json
from tunewright.runs.records import from_json, to_json
from tunewright.runs.run_files import FileFacts
from tunewright.runs.summary.data import DataDescription, DataSummary
from tunewright.runs.summary.evaluation import (
    Comparison,
    EvaluationSummary,
    HintSummary,
    SeedSummary,
    TargetSummary,
)
from tunewright.runs.summary.facts import MetricFacts, TaskFacts
from tunewright.runs.summary.model import CertificateSummary, LayerSummary, ModelSummary, OpeningSummary
from tunewright.runs.summary.training import (
    FewShotSummary,
    PrivacyAccount,
    PrivacySummary,
    StrengthSummary,
    TrainingSummary,
)

SUMMARY_FILE = "summary.json"


@dataclass(frozen=True, kw_only=True)
class StageSummary:
    """A finished stage."""

    stage: str
    kind: Literal["pretrain", "finetune"]
    task: str
    seed: int
    data: DataSummary
    model: ModelSummary
    training: TrainingSummary
    certificate: CertificateSummary
    task_facts: TaskFacts | None = None
    metric_facts: dict[str, MetricFacts] = field(default_factory=dict)
    """Of every metric that is named here."""
    privacy: PrivacySummary | None = None
    """None: no stage before it was trained with differential privacy."""
    texts: DataDescription | None = None
    evaluation: EvaluationSummary | None = None
    """None: it is not evaluated yet, or there is nothing to hold its answers against."""
    seeds: SeedSummary | None = None
    comparisons: list[Comparison] | None = None
    hint: HintSummary | None = None
    target: dict[str, TargetSummary] | None = None
    files: dict[str, FileFacts] | None = None
    """None: it is not evaluated yet."""

    @property
    def unmeasured(self) -> StageSummary:
        """The same without what was measured."""
        return replace(self, evaluation=None, seeds=None, comparisons=None, hint=None, target=None, files=None)

    def to_json(self) -> dict[str, Any]:
        """Return the JSON of summary.json."""
        return to_json(self)


# Keys of older versions.
OLD_NAMES: dict[type, dict[str, str]] = {
    DataSummary: {"left_out": "skipped"},
    LayerSummary: {"moving": "trainable"},
    OpeningSummary: {"class": "model_class"},
    TrainingSummary: {"frozen_part_kept": "feature_cache"},
    FewShotSummary: {
        "asked_for": "requested",
        "examples_a_class": "examples_per_class",
        "few": "threshold",
        "C": "strength",
    },
    StrengthSummary: {"C": "strength"},
    PrivacyAccount: {"asked": "target_epsilon"},
    EvaluationSummary: {"beside": "other_data"},
}


def read_summary(stage: Path) -> StageSummary:
    """Return the summary of a stage's folder.

    Raises:
        ArtifactError: it is missing or damaged; names the field.
    """
    return open_summary(stage / SUMMARY_FILE)


def open_summary(path: Path) -> StageSummary:
    """Return the summary that a file holds.

    Raises:
        ArtifactError: it is missing or damaged; names the field.
    """
    return from_json(StageSummary, read_json(path, "the summary of a stage"), file=path, old_names=OLD_NAMES)


def write_summary(stage: Path, summary: StageSummary) -> None:
    """Write the summary into a stage's folder."""
    write_record(stage / SUMMARY_FILE, summary.to_json())


def damage_beside(stage: Path, name: str) -> Damage | None:
    """Return how a file of an evaluated stage differs from what the summary says of it; None: it does not, or is not listed.

    Raises:
        ArtifactError: the summary is damaged.
    """
    files = read_summary(stage).files if (stage / SUMMARY_FILE).exists() else None
    return file_damage(stage / name, vars(files[name])) if files is not None and name in files else None
