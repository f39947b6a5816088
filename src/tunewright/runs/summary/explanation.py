"""Why a model answered as it did: what a report shows of an explained answer."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from tunewright.runs.records import Count, Share


@dataclass(frozen=True, kw_only=True)
class UnitScore:
    """A part of an input, and what it adds to the explained number."""

    unit: str
    score: float


@dataclass(frozen=True, kw_only=True)
class CheckSummary:
    """What removing units in the explanation's order does, against random orders; see `evaluation/attribution.py`."""

    comprehensiveness: float
    sufficiency: float
    deletion: float
    percentile: dict[str, Share]
    faithful: bool


@dataclass(frozen=True, kw_only=True)
class Phrases:
    """Phrases to be said in the page's language, each followed by the names for its {}."""

    answer: list[str]
    explained: list[str]


@dataclass(frozen=True, kw_only=True)
class ExplanationSummary:
    """One answer, explained and checked. Where it comes from is a row of the data, a file, or a line of input."""

    answer: str
    explained: str
    absent: str
    """What an absent unit is replaced by."""
    method: str
    converged: bool
    units: list[UnitScore]
    check: CheckSummary
    phrases: Phrases
    look: Literal["units", "text"]
    """Whether the units are shown as a list or as running text."""
    view: bool = False
    """Whether it shows something of the network that does not depend on the answer."""
    shape: list[Count] | None = None
    """Rows and columns of a picture's patches."""
    image: str | None = None
    """A data URI of the picture."""
    row: int | None = None
    file: str | None = None
    line: int | None = None
    target: str | list[str] | float | None = None
    """The right answer, where it is known and was missed."""
    steps: Count | None = None
    gap: float | None = None
    orders: Count | None = None
    standard_error: float | None = None
