"""What a task is: how its examples become tensors, its default network, loss, metrics and baselines.

A task is one file in this folder with one `Task`, and one line in `tasks/__init__.py`'s table. Everything else in
Tunewright works from what is written there.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np
import pyarrow as pa
from torch import Tensor

from tunewright.data.batches.batch import Examples
from tunewright.data.image.resize_crop import Framing
from tunewright.data.prepared import Prepared
from tunewright.evaluation.baselines import Baseline
from tunewright.evaluation.metrics import Kind
from tunewright.models.backbone import Backbone
from tunewright.models.core.network import Network
from tunewright.models.hub.purposes import Purpose
from tunewright.recipe.schema import Recipe
from tunewright.tasks.base.targets import TargetEncoder
from tunewright.training.objectives.base import Objective
from tunewright.training.privacy.lineage import Statistic

# For each text (or whatever a table's row is): outputs [N, K] and targets [N] that the metrics of a kind want.
Measured = tuple[np.ndarray, np.ndarray]


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """How a network is measured and used where there is no target column to hold its answers against.

    The encoder is always the task's own; tables have the columns that it reads, and `_row`.
    """

    kind: Kind
    """What the metrics get."""
    outputs: Callable[[Network, Network | None, Any, pa.Table], Measured]
    """(network, the network before the stage, encoder, table) → outputs and targets of the table's rows. There is none before
    a stage that begins with random weights."""
    baselines: Callable[[Any, pa.Table, pa.Table], list[Baseline]]
    """(encoder, training rows, table) → what needs no network, measured on the same table."""
    predictions: Callable[[Network, Any, pa.Table], list[dict[str, Any]]]
    """(network, encoder, table) → what `predict` prints for each row."""
    facts: Callable[[Network, Any, pa.Table], dict[str, Any]] | None = None
    """(network, encoder, table) → more that is to be known of the test rows, as JSON under a name of its own."""
    units: Callable[[Any, pa.Table], np.ndarray] | None = None
    """(encoder, table) → the numbers [N] of what is measured, where that is not the rows, such as users."""
    select: str | None = None
    """The metric that is measured on the validation rows and chooses the best weights; None: the loss does."""
    zero_shot: tuple[str, Callable[[Network, Any, pa.Table], Measured]] | None = None
    """The metric by which models that are not trained for the task yet can be compared, whatever their tokens are, and (network, encoder,
    table) → the outputs and targets that it wants; None: there is none."""
    sample: Callable[[Network, Any], str] | None = None
    """(network, encoder) → what the network makes by itself, shown after each epoch; None: nothing."""


class InputEncoder(Protocol):
    """Turns rows of a table into what the network gets; fitted on the training split only, saved with the model."""

    @property
    def input_shape(self) -> tuple[int, ...]:
        """The shape of one example, without the batch: (C, H, W) for images, (F,) for rows, (longest,) for texts."""
        ...

    @property
    def plain_name(self) -> str:
        """What the linear baseline is, in words."""
        ...

    @property
    def plain_rows(self) -> int:
        """How many training rows the linear baseline sees at most."""
        ...

    def examples(self, table: pa.Table, target: Tensor | None) -> Examples:
        """The rows as the network reads them. Raises DataError when a column is missing or of another kind."""
        ...

    def plain(self, train: pa.Table, test: pa.Table) -> tuple[Any, Any]:
        """Both tables as a linear model reads them: [N, ...] float32, or a sparse matrix [N, F]."""
        ...

    def show(self, table: pa.Table, index: int) -> dict[str, Any]:
        """One example as a person can look at it: {"image": data URI} or {"input": {column: value}}."""
        ...

    def to_json(self) -> dict[str, Any]: ...

    def statistics(self, prepared: Prepared, owner: str | None) -> list[Statistic]:
        """Everything in the encoder's JSON and files that was computed from training rows, if it was fitted to these.

        Args:
            owner: the column that says whose a row is; None: each row is by itself.
        """
        ...

    def write(self, folder: Path) -> None:
        """Files that the JSON does not hold, such as a tokenizer's, into the model's folder."""
        ...


@dataclass(frozen=True, kw_only=True)
class Title:
    """A name as reports and cards print it, in each of their languages."""

    en: str
    zh: str


@dataclass(frozen=True, kw_only=True)
class Task:
    """One kind of problem."""

    name: str
    summary: str
    """One line for `tunewright init` and the docs."""
    title: Title
    hub_task: str
    """The task's name on the Hugging Face hub (`pipeline_tag` of a model card)."""
    target_kind: Literal["category", "number", "labels"] | None
    """None: the task learns from the inputs alone."""
    fit_inputs: Callable[[Prepared, Recipe, Backbone | None, Any], InputEncoder]
    """Learn the input encoding from the training split, or take it from the backbone. The last argument is the encoder
    that the network to start from was trained with, one that `load_inputs` gave; None: a network that is new here."""
    load_inputs: Callable[[dict[str, Any], Path], InputEncoder]
    """The encoder from its JSON and the files in the model's folder."""
    default_model: dict[str, Any]
    """The recipe's `model` block when it says nothing."""
    defaults: dict[str, Any]
    """The recipe's other defaults."""
    objective: str
    metrics: tuple[str, ...]
    """Measured by default; the first is the headline and selects the best weights."""
    frame: Callable[[Recipe, Backbone | None], tuple[Framing | None, str | None]] | None = None
    """How pictures in files get one size while they are prepared, and what had to be assumed; None: no pictures."""
    purpose: Purpose | None = None
    """What a pretrained backbone of the Transformers library is opened for; None: it cannot be used."""
    objectives: dict[str, Callable[..., Objective]] | None = None
    """What can be minimised, by name, each made from the input encoder and the recipe's options; None: what fits the
    target, of `training/objectives/registry.py`."""
    network: Callable[[Recipe, Any, Backbone | None, StartingModel | None], tuple[Network, str | None]] | None = None
    """(recipe, encoder, pretrained backbone, model to start from) → a network of the task's own kind, and what is to be said of it;
    None: a layer list or a named backbone with a head."""
    augment: Callable[[Sequence[str | dict[str, Any]], int], Any] | None = None
    """(`train.augment`, seed) → what changes training examples that are no pictures; None: nothing does."""
    objective_of: Callable[[Any], str] | None = None
    """(encoder) → what is minimised where the recipe does not say; None: always `objective`."""
    needs_trained_model: bool = False
    """Whether it has a meaning only for a network that has learned something before."""
    evaluation: Evaluation | None = None
    """None: the network is measured by the target."""

    @property
    def kind(self) -> Kind:
        """What the metrics get."""
        if self.evaluation is not None:
            return self.evaluation.kind
        kinds: dict[str | None, Kind] = {"category": "classification", "labels": "multilabel", "number": "regression"}
        return kinds[self.target_kind]


@dataclass(frozen=True, kw_only=True)
class Preprocessor:
    """Both encoders of a model: what `predict` needs besides the weights."""

    task: Task
    inputs: InputEncoder
    target: TargetEncoder | None

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
