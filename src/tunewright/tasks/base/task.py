"""What a task is: its inputs and target, default network, objectives, metrics and evaluation.

A task is one file in this folder with one `Task`, and one line in `tasks/registry.py`. All else in Tunewright works from what
stands there.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa

from tunewright.data.prepare.target_column import TargetKind
from tunewright.errors import ArtifactError
from tunewright.evaluation.metrics import METRICS, Metric
from tunewright.models.backbone import Backbone
from tunewright.models.core.network import Network
from tunewright.models.hub.purposes import Purpose
from tunewright.recipe.schema import Recipe
from tunewright.runs.summary.facts import TaskFacts, Title
from tunewright.tasks.base.encoders import Encoders, InputEncoder
from tunewright.tasks.base.evaluation import Evaluation
from tunewright.tasks.base.explain import Question
from tunewright.tasks.base.modality import Modality
from tunewright.tasks.base.request import Request
from tunewright.tasks.base.targets import Target
from tunewright.training.objectives.base import Objective


@dataclass(frozen=True, kw_only=True)
class About:
    """A task as reports, model cards and the Hugging Face hub name it."""

    en: str
    zh: str
    hub_task: str
    """`pipeline_tag` of a model card."""
    intended_use: str | None = None
    """A sentence of the model card; None: the card says what is predicted from what."""


@dataclass(frozen=True, kw_only=True)
class Architecture:
    """Where the network of a task comes from."""

    default: dict[str, Any]
    """The recipe's `model` block when it says nothing."""
    purpose: Purpose | None = None
    """The head with which a pretrained backbone of the Transformers library is opened; None: it cannot be used."""
    build: Callable[[Recipe, Encoders, Backbone | None, StartingModel | None], tuple[Network, str | None]] | None = None
    """(recipe, encoders, pretrained backbone, model to start from) → a network of the task's own kind, and what is to be said
    of it; None: a list of layers, or a named backbone with a head."""
    needs_trained_model: bool = False
    """Whether the task has a meaning only for a network that has learned something before."""


@dataclass(frozen=True, kw_only=True)
class Task:
    """One kind of problem."""

    name: str
    summary: str
    """One line for `tunewright init` and the docs."""
    about: About
    inputs: Modality
    target: Target | None
    """None: the task learns from the inputs alone."""
    network: Architecture
    objectives: Mapping[str, Callable[..., Objective]] | None = None
    """What can be minimised, by name, each made from the input encoder and the recipe's options; the first is the default,
    unless the encoder names another. None: what fits the target, of `training/objectives/registry.py`."""
    metrics: tuple[str, ...]
    """Measured by default; the first is the headline."""
    own_metrics: tuple[Metric, ...] = ()
    """Metrics that no other file defines; `metrics` names them too."""
    evaluation: Evaluation
    defaults: dict[str, Any]
    """The recipe's other defaults."""

    def __post_init__(self) -> None:
        for metric in self.own_metrics:
            METRICS.add(metric.name, metric)

    @property
    def facts(self) -> TaskFacts:
        """What a report needs to know of it."""
        title = Title(en=self.about.en, zh=self.about.zh)
        return TaskFacts(title=title, hub_task=self.about.hub_task, intended_use=self.about.intended_use)

    @property
    def kind(self) -> str:
        """The kind of its metrics."""
        return self.evaluation.kind

    @property
    def target_kind(self) -> TargetKind | None:
        """The kind of column that is the target; None: there is none."""
        return None if self.target is None else self.target.kind

    @property
    def purpose(self) -> Purpose | None:
        """The head with which a pretrained backbone of the Transformers library is opened; None: it cannot be used."""
        return self.network.purpose

    def objective(self, inputs: InputEncoder) -> str:
        """Return the name of the objective when the recipe names none."""
        if inputs.objective is not None:
            return inputs.objective
        if self.objectives is not None:
            return next(iter(self.objectives))
        assert self.target is not None
        return self.target.objective


@dataclass(frozen=True, kw_only=True)
class Preprocessor(Encoders):
    """Both encoders of a model and its task: what `predict` needs besides the weights."""

    task: Task

    @property
    def request(self) -> Request[Any]:
        """The reader of requests."""
        return self.task.inputs.request(self.inputs)

    @property
    def answers(self) -> bool:
        """Whether the model can be asked; not when it was pretrained without the labels of its task."""
        return self.target is not None or self.task.target is None

    def question(self, network: Network, table: pa.Table, wanted: str | None) -> Question:
        """Return the question about the one row of a table.

        Args:
            wanted: the class, label, item or continuation that is explained; None: the model's own answer.

        Raises:
            DataError: there is no such class or item.
            ArtifactError: the model answers in a way that cannot be explained by its input.
        """
        if self.task.inputs.explain is None:
            raise ArtifactError(
                "such a model's answers are not explained yet",
                found=self.task.name,
                expected="a model of classes, numbers, the next token, transcripts, clicks or items",
            )
        return self.task.inputs.explain(network, self, table, wanted)

    def to_json(self) -> dict[str, Any]:
        target = self.target.to_json() if self.target else None
        return {"task": self.task.name, "inputs": self.inputs.to_json(), "target": target}


@dataclass(frozen=True)
class StartingModel:
    """The model that a stage starts from."""

    network: Network
    preprocessor: Preprocessor
    folder: Path | None
    """Where it was read from; None: it was made here."""
