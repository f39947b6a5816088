"""What a stage learned from: its data, and what became of texts and recordings."""

from __future__ import annotations

from dataclasses import dataclass, field

from tunewright.runs.records import Amount, Count, Share


@dataclass(frozen=True, kw_only=True)
class SkippedSummary:
    """Rows that were not used, for one reason."""

    reason: str
    count: Count
    examples: list[str] = field(default_factory=list)
    """The first three, each with its row."""
    fix: str = ""


@dataclass(frozen=True, kw_only=True)
class DataSummary:
    """Where the data came from, what was used and what was skipped."""

    source: str
    rows: dict[str, Count] = field(default_factory=dict)
    """By split."""
    read: Count | None = None
    used: Count | None = None
    skipped: list[SkippedSummary] = field(default_factory=list)
    input: list[str] = field(default_factory=list)
    """The columns that the model reads."""
    target: str | None = None
    """None: the rows have no labels."""
    target_reason: str = ""
    classes: list[str] | None = None
    split_rule: str = ""
    fingerprint: str = ""
    licence: str | None = None
    citation: str | None = None


@dataclass(frozen=True, kw_only=True)
class TokenizerSummary:
    """How a tokenizer does on texts that it was not trained on."""

    vocabulary: Count
    """Tokens that it knows, special ones included."""
    bytes_per_token: Amount
    unknown_rate: Share
    texts: Count
    """How many texts were measured."""
    longest: list[str] = field(default_factory=list)
    """The longest tokens in these texts."""
    measured_on: str | None = None
    """The split that the texts are of."""


@dataclass(frozen=True, kw_only=True)
class MixedSource:
    """What an epoch reads of one source of a mix."""

    source: str
    weight: Amount
    rows: Count
    read: Count
    """Rows read in an epoch; more than `rows` where the source is repeated."""
    share: Share
    """Of all rows of an epoch."""


@dataclass(frozen=True, kw_only=True)
class TextSummary:
    """The training texts: plain ones, conversations, or pairs of answers."""

    tokens: Count
    examples: Count
    """Rows of an epoch."""
    max_length: Count
    """Tokens read at once."""
    trained: Count | None = None
    """Tokens that the loss counts; None: all of them."""
    cut: Count | None = None
    """Texts that are longer than `max_length` and lost their end; None: none is cut."""
    empty: Count | None = None
    """Texts without a token that the tokenizer knows."""
    tokenizer: TokenizerSummary | None = None
    mix: list[MixedSource] | None = None


@dataclass(frozen=True, kw_only=True)
class RecordingSummary:
    """The training recordings."""

    examples: Count
    seconds: Amount
    letters: Count
    """The size of the alphabet."""
    cut: Count
    """Recordings that are too short for their transcript, or have none, and are skipped."""


# What a task says of its training examples, besides the data.
DataDescription = TextSummary | RecordingSummary
