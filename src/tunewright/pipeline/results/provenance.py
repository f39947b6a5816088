"""The run and the stage that a saved model belongs to, and the data that it was trained on."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from tunewright.console import silent
from tunewright.data.prepared import Prepared
from tunewright.errors import ArtifactError
from tunewright.pipeline.build.prepare_data import prepare_data
from tunewright.pipeline.read_recipe import given_weights
from tunewright.pipeline.stage import StageJob, recipe_backbone
from tunewright.recipe.loading import load_recipe
from tunewright.recipe.stages import StageRecipe, stage_recipes
from tunewright.runs.folder import Run
from tunewright.tasks.registry import task_defaults


@dataclass(frozen=True, kw_only=True)
class Provenance:
    """Where a saved model comes from."""

    run: Run
    stage: StageRecipe
    source: Path | None
    """The model folder that the stage started from."""
    base: Path

    def data(self) -> Prepared:
        """The stage's data, prepared as it was."""
        return prepare_data(self.stage.recipe, self.base, silent())

    def job(self, folder: Path, prepared: Prepared) -> StageJob:
        """The same stage once more, in another folder and on other rows."""
        backbone = recipe_backbone(self.stage.recipe, self.base)
        return StageJob(stage=self.stage, folder=folder, source=self.source, prepared=prepared, backbone=backbone)


def provenance(folder: Path) -> Provenance:
    """The run and stage of a model folder.

    Raises:
        ArtifactError: it stands in no run, or the run knows no such stage.
    """
    place = folder.resolve()
    found = next((parent for parent in place.parents if (parent / "run.json").exists()), None)
    if found is None:
        raise ArtifactError(
            "the training rows are found by the run that the model belongs to, and it stands in none",
            file=folder,
            expected="a model inside a run folder, such as runs/mnist/finetune/model",
            fix="name the model where `tunewright run` left it",
        )
    run = Run(found)
    recipe = load_recipe(run.recipe, [], defaults=task_defaults)
    stages = stage_recipes(recipe)
    index = next((index for index, stage in enumerate(stages) if stage.name == place.parent.name), None)
    if index is None:
        raise ArtifactError("the run's recipe has no such stage", file=folder, found=place.parent.name)
    base = Path(run.told("base"))
    source = given_weights(stages[0].recipe, base) if index == 0 else found / stages[index - 1].name / "model"
    return Provenance(run=run, stage=stages[index], source=source, base=base)
