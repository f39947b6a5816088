"""How a stage was trained."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

from tunewright.runs.records import Amount, Count, Share

Unit = Literal["example", "user"]


@dataclass(frozen=True, kw_only=True)
class BestEpoch:
    """The epoch whose weights are kept."""

    epoch: Count
    step: Count
    metric: str
    value: float


@dataclass(frozen=True, kw_only=True)
class StrengthSummary:
    """The cross-validated score of one regularisation strength C."""

    strength: Amount
    log_loss: float
    accuracy: Share


@dataclass(frozen=True, kw_only=True)
class FewShotSummary:
    """A head that was solved for on few examples."""

    method: Literal["features", "contrastive"]
    requested: bool
    """Whether the recipe names the method."""
    examples_per_class: Amount
    threshold: Count
    """Fewer examples per class than this are few."""
    features: Count
    strength: Amount
    """C, the inverse of the regularisation."""
    folds: Count
    """Of the cross-validation; 0: there was none."""
    scores: list[StrengthSummary] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


@dataclass(frozen=True, kw_only=True)
class PrivacyAccount:
    """What a private stage spent by itself."""

    epsilon: Amount
    epsilon_prv: Amount | None
    """By the second accountant; None where its numerics gave up."""
    target_epsilon: Amount | None
    """What the recipe asks for."""
    delta: Share
    unit: Unit
    units: Count
    rate: Share
    """The probability that a unit is drawn into a batch."""
    steps: Count
    noise_multiplier: Amount
    clip_norm: Amount


@dataclass(frozen=True, kw_only=True)
class TrainingConditions:
    """What a way of training adds to the summary, besides its steps."""

    preparation_seconds: Amount | None = None
    peak_memory: Count | None = None
    """Bytes; None: the system does not say."""
    precision: str | None = None
    gradient_checkpointing: bool | None = None
    feature_cache: bool | None = None
    """Whether the features of the frozen part were computed once."""
    few_shot: FewShotSummary | None = None
    privacy: PrivacyAccount | None = None


@dataclass(frozen=True, kw_only=True)
class TrainingSummary(TrainingConditions):
    """What was done, and how long it took. What belongs to training by gradients is None for a head that was solved for."""

    objective: str
    seconds: Amount
    device: str
    threads: Count
    epochs: Count | None = None
    """As the recipe says."""
    epochs_run: Count | None = None
    steps: Count | None = None
    examples_per_second: Amount | None = None
    batch_size: Count | None = None
    batch_seconds: Amount | None = None
    """Seconds of audio in a batch, at most."""
    optimizer: str | dict[str, Any] | None = None
    """Its name, or {name: options}."""
    lr: Amount | None = None
    best: BestEpoch | None = None
    """None: the last weights are kept."""
    stopped: str | None = None
    """Why training ended."""


@dataclass(frozen=True, kw_only=True)
class Statistic:
    """Something that was computed from training rows without noise and is part of the model's files."""

    column: str
    kind: Literal["categories", "classes", "mean and deviation", "bin edges", "vocabulary", "letters", "word counts"]
    count: Count
    """How many values it is."""
    single: Count = 0
    """How many of them only one training row has, or only the rows of one user."""
    unit: Unit = "example"


@dataclass(frozen=True, kw_only=True)
class Guarantee:
    """What is promised to each unit of one stage's data; `epsilon` is None where nothing can be promised."""

    source: str
    unit: Unit
    delta: Share
    epsilon: Amount | None
    epsilon_prv: Amount | None
    """By the second accountant; None where its numerics gave up."""
    stages: list[str]
    """Those that read the units, or may have."""
    reason: Literal["without privacy", "unknown start", "other units"] | None = None
    """Why nothing is promised."""
    because_of: str = ""
    """The stage or the starting model that is the reason."""


@dataclass(frozen=True, kw_only=True)
class PrivacySummary:
    """What differential privacy promises of a model, over all stages that its weights come from, and what it does not."""

    guarantees: list[Guarantee] = field(default_factory=list)
    public: list[str] = field(default_factory=list)
    """Published models that it started from."""
    statistics: list[Statistic] = field(default_factory=list)
    not_covered: list[str] = field(default_factory=list)
