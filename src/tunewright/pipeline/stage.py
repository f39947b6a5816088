"""A stage that is to be trained, and the model that it starts from."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from tunewright.data.prepared import Prepared
from tunewright.models.backbone import Backbone, named_backbone, new_backbone, open_backbone
from tunewright.models.core.meta_weights import Weights, building_with
from tunewright.models.saved_model import load_network
from tunewright.recipe.schema import Model, Recipe
from tunewright.recipe.stages import StageRecipe
from tunewright.tasks.base.task import StartingModel
from tunewright.tasks.registry import get_task, load_preprocessor
from tunewright.training.distributed.process_group import ProcessGroup


@dataclass(frozen=True, kw_only=True)
class StageJob:
    """One stage: its folder, what it starts from, and its data."""

    stage: StageRecipe
    folder: Path
    source: Path | None
    """The model folder to start from; None: random weights, or the pretrained backbone's."""
    prepared: Prepared
    backbone: Backbone | None
    beside: dict[str, Prepared] = field(default_factory=dict)
    """Other data that the model is evaluated on, by name."""
    group: ProcessGroup | None = None
    """The processes that train the stage together; None: this one trains it alone."""

    @property
    def recipe(self) -> Recipe:
        return self.stage.recipe

    @property
    def pretrained(self) -> Backbone | None:
        """The backbone whose weights a stage begins with that starts from no model; None: from random ones."""
        random = self.backbone is None or not self.backbone.pretrained or self.recipe.model.weights == "random"
        return None if random else self.backbone

    @property
    def starts_from(self) -> Path | None:
        """The folder of the model that the stage starts from: the stage's before, or the backbone's; None: there is none."""
        return self.source or (self.backbone.folder if self.backbone is not None else None)

    def origin(self, kind: Weights = "pretrained") -> StartingModel | None:
        """The model to start from, with its weights or others; None: the stage starts from none."""
        return None if self.source is None else load_origin(self.source, kind)


def load_origin(folder: Path, kind: Weights = "pretrained") -> StartingModel:
    """Load a saved model and its preprocessor."""
    with building_with(kind):
        saved = load_network(folder)
    return StartingModel(saved.network, load_preprocessor(saved), folder)


def recipe_backbone(recipe: Recipe, base: Path) -> Backbone | None:
    """The backbone of the Transformers library that a stage's recipe, or else its task, names."""
    task = get_task(recipe.task)
    block = recipe.model
    if block.backbone is None and block.layers is None and "backbone" in task.network.default:
        block = Model(**task.network.default)
    if (new := new_backbone(block, base)) is not None:
        return new
    name = named_backbone(block)
    return None if name is None else open_backbone(name, base)
