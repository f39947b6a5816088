"""A modality: one kind of input, and all that depends on it alone."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from tunewright.console import Console
from tunewright.data.batches.batch import Examples
from tunewright.data.image.resize_crop import Framing
from tunewright.data.prepared import Prepared
from tunewright.models.backbone import Backbone
from tunewright.models.core.network import Network
from tunewright.recipe.schema import Recipe
from tunewright.runs.summary.data import DataDescription
from tunewright.tasks.base.encoders import Encoders, InputEncoder
from tunewright.tasks.base.explain import Question
from tunewright.tasks.base.export_case import Trial, tensor_case
from tunewright.tasks.base.request import Request
from tunewright.tasks.base.targets import TargetEncoder
from tunewright.training.objectives.base import Objective

# (encoder, prepared data, training examples, console) → facts for the summary, printed as well.
Describe = Callable[[Any, Prepared, Examples, Console], DataDescription]


@dataclass(frozen=True, kw_only=True)
class Modality:
    """One kind of input: how its encoder is fitted and loaded, a request read, the data described, an answer explained.

    Modalities of one name read each other's models: a stage may start from a model of another task of the same name.
    """

    name: str
    fit: Callable[[Prepared, Recipe, Backbone | None, Any], InputEncoder]
    """Fit the encoder on the training split, or take it from the backbone. The last argument is the encoder of the model that
    the stage starts from; None: the stage starts from no model."""
    load: Callable[[dict[str, Any], Path], InputEncoder]
    """The encoder from its JSON and the files in the model's folder."""
    request: Callable[[Any], Request[Any]] = Request
    """The reader of requests for an encoder."""
    describe: Describe | None = None
    """None: there is nothing to say but the number of rows."""
    preview: Callable[[Any, Prepared, Console], None] | None = None
    """Encode the training rows and print the first, before anything is trained; raises DataError. None: nothing is shown."""
    explain: Callable[[Network, Encoders, pa.Table, str | None], Question] | None = None
    """(network, encoders, one row, the answer to explain) → a question; None: such answers are not explained."""
    export_case: Callable[[Network, Encoders, pa.Table], Trial] = tensor_case
    """The network as it is exported, with rows to try it with."""
    frame: Callable[[Recipe, Backbone | None], tuple[Framing | None, str | None]] | None = None
    """How pictures in files get one size while they are prepared, and a warning; None: there are no pictures."""
    augment: Callable[[Recipe, Objective, TargetEncoder | None], Any] | None = None
    """(recipe, objective, target's encoder) → what `train.augment` changes training examples with, for
    `Examples.with_augmentation`; None in place of the function: nothing changes them."""
    mix: Callable[[Examples, Prepared, Recipe], Examples] | None = None
    """The training examples of several sources, each as often as `data.mix` says; None: sources cannot be mixed."""
    texts: Callable[[Prepared, Recipe], list[str]] | None = None
    """The columns of running text, by which two stages are compared; None: there are none."""
    documents: Callable[[Any, pa.Table], list[np.ndarray]] | None = None
    """(encoder, table) → the tokens of each row as a document of its own; None: rows are no plain texts to be continued."""
    finds_columns: bool = False
    """Whether columns are found by their names, so that a recipe need not name them."""
    unused: Callable[[Prepared], list[str]] | None = None
    """The input columns that are not read because of their kind; None: the recipe or `fit` decides."""
