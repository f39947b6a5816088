"""Begin a training, or go on from its newest checkpoint."""

from __future__ import annotations

from pathlib import Path

from tunewright.console import Console
from tunewright.pipeline.session.disk_space import checkpoint_room, require_room
from tunewright.pipeline.session.session import Session
from tunewright.pipeline.stage import StageJob
from tunewright.pipeline.strategies.base import Strategy
from tunewright.training import freezing
from tunewright.training.checkpoints.checkpoint import find_newest
from tunewright.training.state import State


def begin_or_resume(job: StageJob, strategy: Strategy, session: Session, total_steps: int, console: Console) -> State:
    """The state from which a stage is trained, its weights and optimiser restored.

    Raises:
        ArtifactError: the stage began with other weights, or with another optimiser.
        RunFailed: the disk has no room for what the training will write.
    """
    newest = find_newest(job.folder / "checkpoints", console.warning) if strategy.is_writer else None
    found = strategy.agree(None if newest is None else str(newest))
    state = strategy.begin() if found is None else strategy.restore(Path(found))
    if found is not None:
        console.info(f"{job.stage.name}: going on after step {state.step:,} of {total_steps:,}")
    if strategy.is_writer and state.finished is None:
        trained = freezing.trainable_state_dict(session.network, session.plans).values()
        require_room(job.folder, checkpoint_room(session.recipe.train, total_steps, trained, session.optimizer))
    return state
