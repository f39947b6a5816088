"""What was measured of a stage's model."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

from tunewright.runs.records import Amount, Count, Share, to_json
from tunewright.runs.summary.explanation import ExplanationSummary

Verdict = Literal["better", "worse", "no real difference"]


@dataclass(frozen=True)
class Estimate:
    """A value with its 95 % interval; None where it has none."""

    value: float | None
    low: float | None
    high: float | None

    def to_json(self) -> dict[str, Any]:
        return to_json(self)


# Estimates by metric; the first is the headline.
Estimates = dict[str, Estimate]


@dataclass(frozen=True, kw_only=True)
class BaselineSummary:
    """A model without skill, on the same rows."""

    name: str
    training_rows: Count | None = None
    """How many rows it learned from, where these are not all."""
    metrics: Estimates = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Slice:
    """The result on the rows with one value of a column."""

    column: str
    value: str
    rows: Count
    small: bool
    """Whether so few rows say little."""
    metrics: Estimates = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class ConfusionSummary:
    """Counts [true class][predicted class]."""

    labels: list[str]
    counts: list[list[Count]]


@dataclass(frozen=True, kw_only=True)
class ReliabilityBin:
    """The rows whose confidence is between two edges."""

    low: float
    high: float
    rows: Count
    confidence: Share
    """Their mean confidence."""
    accuracy: Share


@dataclass(frozen=True, kw_only=True)
class CalibrationSummary:
    """Temperature scaling: fitted on validation rows, measured on test rows. Pairs are before and after."""

    temperature: Amount
    fitted_on: str
    log_loss: list[float]
    ece: list[float]
    bins: list[ReliabilityBin]
    bins_after: list[ReliabilityBin]


@dataclass(frozen=True, kw_only=True)
class LabelSummary:
    """One label of several; a figure that is not defined is None."""

    label: str
    rows: Count
    """Rows that have it."""
    predicted: Count
    """Rows for which it is predicted."""
    precision: Share | None
    recall: Share | None
    f1: Share | None
    average_precision: float | None


@dataclass(frozen=True, kw_only=True)
class ThresholdSummary:
    """The threshold with the best F1 of each label, and what they change on the test rows. Pairs are before and after."""

    fitted_on: str
    by_label: dict[str, Share]
    f1_micro: list[float | None]
    f1_macro: list[float | None]


@dataclass(frozen=True, kw_only=True)
class Mistake:
    """A row with a large loss."""

    row: int
    target: str | list[str] | float
    """A class, several labels, or a number."""
    prediction: str | list[str] | float
    confidence: Share | None = None
    loss: float | None = None
    image: str | None = None
    """A data URI."""
    input: dict[str, Any] | None = None
    """The row's cells by column."""


@dataclass(frozen=True, kw_only=True)
class OtherFigure:
    """A metric on other data, after the stage and before it; None: the stage began with random weights."""

    now: Estimate
    before: Estimate | None = None
    difference: Estimate | None = None
    verdict: Verdict | None = None


@dataclass(frozen=True, kw_only=True)
class OtherDataSummary:
    """Other texts or questions, measured before and after the stage."""

    name: str
    source: str
    split: str
    rows: Count
    kind: Literal["texts", "questions"]
    guesses: dict[str, Share] = field(default_factory=dict)
    """The accuracy of ways to guess."""
    metrics: dict[str, OtherFigure] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class RankingSummary:
    """The protocol of a ranking, in figures."""

    items: Count
    """Items that are ranked."""
    users: Count
    asked: Count
    """Test rows whose item is to be found."""
    unknown: Count
    """Test rows of unknown users or items, which are skipped."""


@dataclass(frozen=True, kw_only=True)
class SpeechConfusion:
    """What was taken for what; nothing said, or nothing recognised, is an empty text."""

    said: str
    heard: str
    count: Count


@dataclass(frozen=True, kw_only=True)
class SpeechMistake:
    """A recording with many wrong words."""

    row: int
    said: str
    heard: str
    wrong_words: Count
    audio: str | None = None
    """A data URI."""


@dataclass(frozen=True, kw_only=True)
class SpeechSummary:
    """How fast speech was recognised, and what was misheard."""

    seconds: Amount
    """Of all test recordings."""
    real_time_factor: Amount
    """Seconds of computation for each second of audio."""
    searched: bool
    """Whether a beam search decoded it."""
    wer_without_search: Amount
    confusions: list[SpeechConfusion] = field(default_factory=list)
    mistakes: list[SpeechMistake] = field(default_factory=list)


@dataclass(frozen=True, kw_only=True)
class TaskFindings:
    """What a task measures of the test rows besides its metrics."""

    mistakes: list[Mistake] | None = None
    """The rows with the largest loss, the worst first."""
    confusion: ConfusionSummary | None = None
    calibration: CalibrationSummary | None = None
    labels: list[LabelSummary] | None = None
    """Of rows with any number of labels, by label."""
    thresholds: ThresholdSummary | None = None
    ranking: RankingSummary | None = None
    speech: SpeechSummary | None = None


@dataclass(frozen=True, kw_only=True)
class EvaluationSummary(TaskFindings):
    """Everything that was measured on a stage's own data."""

    split: str
    rows: Count
    metrics: Estimates
    warning: str | None = None
    baselines: list[BaselineSummary] = field(default_factory=list)
    slices: list[Slice] = field(default_factory=list)
    other_data: list[OtherDataSummary] | None = None
    explanations: list[ExplanationSummary] | None = None


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """The difference from another training on the same rows."""

    name: str
    metric: str
    difference: Estimate
    verdict: Verdict


@dataclass(frozen=True, kw_only=True)
class SeedFigures:
    """A metric over trainings with several seeds."""

    values: list[float]
    mean: float | None
    low: float | None
    high: float | None


@dataclass(frozen=True, kw_only=True)
class SeedSummary:
    """The result over trainings with several seeds."""

    count: Count
    metrics: dict[str, SeedFigures] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class TargetSummary:
    """A figure that was to be reached."""

    wanted: float
    value: float
    reached: bool


@dataclass(frozen=True)
class HintSummary:
    """What would help most, and the figures that it is drawn from."""

    advice: str
    because: str
