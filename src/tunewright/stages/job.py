"""A stage that is to be carried out."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from tunewright.data.prepare import Prepared
from tunewright.models.saved import SavedModel, load_network
from tunewright.recipe.schema import Recipe
from tunewright.recipe.stages import StageRecipe


@dataclass(frozen=True, kw_only=True)
class StageJob:
    """One stage: where it goes, from what it starts, with which data."""

    stage: StageRecipe
    folder: Path
    source: Path | None
    """The model folder to start from; None: random weights."""
    prepared: Prepared

    @property
    def recipe(self) -> Recipe:
        return self.stage.recipe

    def origin(self) -> SavedModel | None:
        """The model to start from, loaded."""
        return None if self.source is None else load_network(self.source)
