"""What reports and cards need to know of a task or a metric, which need not be installed where they are written."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Style = Literal["percent", "number", "amount"]


@dataclass(frozen=True, kw_only=True)
class Title:
    """A name as reports and cards print it, in each of their languages."""

    en: str
    zh: str


@dataclass(frozen=True, kw_only=True)
class TaskFacts:
    """What a report needs to know of a task."""

    title: Title
    hub_task: str
    """The task's name on the Hugging Face hub (`pipeline_tag` of a model card)."""
    intended_use: str | None = None
    """A sentence of the model card; None: the card says what is predicted from what."""


@dataclass(frozen=True, kw_only=True)
class MetricFacts:
    """What a report needs to know of a metric."""

    name: str
    title: Title
    greater_is_better: bool
    style: Style
    """percent: a share, written in percent; number: without a unit, such as F1; amount: of any size, such as an error in the
    unit of the target."""
    hub_name: str
    """The metric's name on the Hugging Face hub."""
