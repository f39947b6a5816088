"""How the processes of a stage share its training: the interface behind which `train_stage` does not look."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, TypeVar

from tunewright.console import Console
from tunewright.models.core.network import Network
from tunewright.pipeline.build.parts import StageParts
from tunewright.pipeline.session.session import Session
from tunewright.runs.summary.training import PrivacyAccount
from tunewright.training.checkpoints.checkpoint import Checkpoint
from tunewright.training.distributed.process_group import ProcessGroup
from tunewright.training.freezing import TrainablePlan
from tunewright.training.gradients import GradientEstimator
from tunewright.training.state import State
from tunewright.training.steps import Steps

T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class TrainedWeights:
    """The best weights of a stage: in the network of its parts, or in its folder where no process holds them whole."""

    plans: list[TrainablePlan]
    """What was trained, by the blocks of the network of the parts."""
    before: dict[str, str]
    """The fingerprint of the weights that the stage began with."""
    after: dict[str, str] | None = None
    """The fingerprint of weights that lie in the folder; None: the network holds them."""
    privacy: PrivacyAccount | None = None
    """What was spent of privacy; None: the stage promises none."""


class Strategy(Protocol):
    """How the processes of a stage share its training. Every method is collective: all processes call it alike."""

    parts: StageParts

    @property
    def is_writer(self) -> bool:
        """Whether this process writes the stage's files and prints."""
        ...

    @property
    def gradient(self) -> GradientEstimator: ...

    @property
    def batches(self) -> Steps: ...

    @property
    def writers(self) -> ProcessGroup | None:
        """The processes that each write their shard of a checkpoint; None: one process writes all of it."""
        ...

    def open(self, console: Console) -> Session:
        """Prepare all that the first step needs. Raises UserError where recipe, data and network do not fit together."""
        ...

    def begin(self) -> State:
        """The state of a training before its first step."""
        ...

    def restore(self, checkpoint: Path) -> State:
        """Load weights and optimiser state. Raises ArtifactError where the stage began with other weights."""
        ...

    def capture(self, state: State) -> Checkpoint | None:
        """What a checkpoint holds; None in a process that writes nothing."""
        ...

    def validate(self) -> dict[str, float] | None:
        """The validation metrics, the same numbers in every process; None: there are no validation examples."""
        ...

    def ask(self, question: Callable[[Network], T]) -> T:
        """What a function finds of the whole network."""
        ...

    def agree(self, value: T) -> T:
        """The writer's value, which JSON can hold, in every process."""
        ...

    def any(self, flag: bool) -> bool:
        """Whether the flag is true in any process."""
        ...

    def close(self, state: State) -> TrainedWeights:
        """Load the best weights of a finished training. Raises RunFailed where they are damaged."""
        ...
