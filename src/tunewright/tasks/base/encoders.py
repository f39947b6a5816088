"""What every encoder of inputs can do, and the two encoders of a model."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, TypeVar

import pyarrow as pa

from tunewright.data.batches.batch import Examples, Truth
from tunewright.data.prepared import Prepared
from tunewright.models.backbone import Backbone
from tunewright.models.core.network import Network
from tunewright.recipe.schema import Model, Recipe
from tunewright.tasks.base.targets import ColumnTarget, TargetEncoder
from tunewright.training.privacy.lineage import Statistic

Kind = TypeVar("Kind", bound="InputEncoder")


class InputEncoder(ABC):
    """Turns rows of a table into what the network reads; fitted on the training split only, saved with the model."""

    plain_name: ClassVar[str] = ""
    """The name of the linear baseline in reports."""
    plain_rows: ClassVar[int] = 50_000
    """The most training rows that baselines are fitted on."""

    @property
    @abstractmethod
    def input_shape(self) -> tuple[int, ...]:
        """The shape of one example without the batch: (C, H, W) for images, (F,) for rows, (longest,) for texts."""

    @abstractmethod
    def examples(self, table: pa.Table, target: Truth) -> Examples:
        """Return the rows as the network reads them.

        Raises:
            DataError: a column is missing or of another kind.
        """

    @abstractmethod
    def show(self, table: pa.Table, index: int) -> dict[str, Any]:
        """Return one example as a person can look at it: {"image": data URI} or {"input": {column: value}}."""

    @abstractmethod
    def to_json(self) -> dict[str, Any]:
        """Return all that `Modality.load` needs besides the files of `write`."""

    @abstractmethod
    def statistics(self, prepared: Prepared, owner: str | None) -> list[Statistic]:
        """Return everything in the JSON and files that was computed from training rows, if it was fitted to these.

        Args:
            owner: the column that says whose a row is; None: each row is by itself.
        """

    def write(self, folder: Path) -> None:  # noqa: B027  most encoders have none
        """Write the files that the JSON does not hold, such as a tokenizer's, into the model's folder."""

    def split(self, prepared: Prepared, split: str, target: TargetEncoder | None) -> Examples:
        """Return a prepared split as examples; an encoder may keep them on disk."""
        table = prepared.table(split)
        return self.examples(table, None if target is None else target.encode(table))

    def plain(self, train: pa.Table, test: pa.Table) -> tuple[Any, Any]:
        """Return both tables as a linear model reads them: [N, ...] float32, or a sparse matrix [N, F]."""
        raise NotImplementedError(f"{type(self).__name__} has no linear baseline")

    @property
    def objective(self) -> str | None:
        """The objective when the recipe names none; None: the task's first."""
        return None

    @property
    def searches(self) -> bool:
        """Whether `model.decoding` has a meaning: predictions are searched for."""
        return False

    @property
    def cuts_texts(self) -> bool:
        """Whether a text that is longer than `model.max_length` loses its end, and nothing else depends on that length."""
        return False

    def completed(self, model: Model) -> Model:
        """Return the recipe's `model` block with what only the encoder knows, such as the sizes of embedding tables."""
        return model

    def backbone_config(self, recipe: Recipe, backbone: Backbone) -> dict[str, Any]:
        """Return the backbone's configuration, changed where the encoder decides, such as the size of a new vocabulary."""
        return backbone.config

    def configure(self, network: Network) -> None:  # noqa: B027  most encoders decide nothing
        """Set what the encoder decides on a new network, such as the tokens that end a turn."""

    def check_network(self, network: Network, folder: Path) -> None:  # noqa: B027  most fit any network
        """See that a saved network and this encoder, read from one folder, belong together.

        Raises:
            ArtifactError: the encoder gives inputs that the network does not know.
        """


@dataclass(frozen=True, kw_only=True)
class Encoders:
    """Both encoders of a model."""

    inputs: InputEncoder
    target: TargetEncoder | None
    """None: the model learned from the inputs alone."""

    @property
    def column_target(self) -> ColumnTarget | None:
        """The target's encoder where a row of outputs answers each example; None: there is no such target."""
        return self.target if isinstance(self.target, ColumnTarget) else None

    def inputs_as(self, kind: type[Kind]) -> Kind:
        """Return the input encoder, for a modality's own code, which knows its class."""
        assert isinstance(self.inputs, kind)
        return self.inputs
