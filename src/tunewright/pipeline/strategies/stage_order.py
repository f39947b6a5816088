"""What the first process of a group tells the others, so that they train the same stage."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from tunewright.data.manifest import Manifest
from tunewright.data.prepared import Prepared
from tunewright.models.core.meta_weights import Weights
from tunewright.pipeline.session.session import Session
from tunewright.pipeline.stage import StageJob, recipe_backbone
from tunewright.recipe.schema import Recipe
from tunewright.recipe.stages import StageRecipe
from tunewright.training.distributed.process_group import ProcessGroup


@dataclass(frozen=True, kw_only=True)
class StageOrder:
    """A stage's job in plain values; paths are absolute."""

    stage: str
    kind: Literal["pretrain", "finetune"]
    recipe: dict[str, Any]
    """With what the first process has chosen: strategy, precision, gradient checkpointing."""
    weights: Weights
    """What the other processes make their networks with."""
    folder: str
    source: str | None
    prepared: str
    manifest: dict[str, Any]
    base: str

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> StageOrder:
        return cls(**value)

    def job(self, group: ProcessGroup) -> StageJob:
        """The job as another process of the group carries it out."""
        recipe = Recipe.model_validate(self.recipe)
        prepared = Prepared(Path(self.prepared), Manifest.from_json(self.manifest), Path(self.base))
        return StageJob(
            stage=StageRecipe(name=self.stage, kind=self.kind, recipe=recipe),
            folder=Path(self.folder),
            source=None if self.source is None else Path(self.source),
            prepared=prepared,
            backbone=recipe_backbone(recipe, prepared.base),
            group=group,
        )


def order_of(job: StageJob, session: Session, weights: Weights) -> StageOrder:
    """The order for a stage whose session is open in the first process."""
    hardware = session.recipe.hardware
    chosen = {
        "strategy": hardware.strategy,
        "prefix_cache": hardware.prefix_cache,
        "precision": session.precision,
        "gradient_checkpointing": session.recomputes,
    }
    recipe = job.recipe.model_copy(update={"hardware": hardware.model_copy(update=chosen)})
    return StageOrder(
        stage=job.stage.name,
        kind=job.stage.kind,
        recipe=recipe.model_dump(mode="json", exclude_unset=True),
        weights=weights,
        folder=str(job.folder.resolve()),
        source=None if job.source is None else str(job.source.resolve()),
        prepared=str(job.prepared.folder.resolve()),
        manifest=job.prepared.manifest.to_json(),
        base=str(job.prepared.base.resolve()),
    )
