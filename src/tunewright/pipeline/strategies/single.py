"""One process trains the whole network."""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property
from pathlib import Path
from typing import TypeVar

from tunewright.console import Console
from tunewright.models.backbone import model_files
from tunewright.models.core.network import Network
from tunewright.pipeline.build.parts import StageParts
from tunewright.pipeline.session.session import Session, open_session
from tunewright.pipeline.stage import StageJob
from tunewright.pipeline.strategies.base import TrainedWeights
from tunewright.pipeline.strategies.validation import Validator, validator
from tunewright.training import freezing
from tunewright.training.checkpoints.beginning import Beginning
from tunewright.training.checkpoints.checkpoint import Checkpoint, load_best, read_checkpoint
from tunewright.training.distributed.process_group import ProcessGroup
from tunewright.training.freeze_certificate import fingerprint
from tunewright.training.gradients import ExactGradient, GradientEstimator
from tunewright.training.optimizers.registry import load_state_tensors, state_tensors
from tunewright.training.state import State
from tunewright.training.steps import Steps

T = TypeVar("T")


class SingleProcess:
    """See `Strategy`."""

    is_writer: bool = True
    writers: ProcessGroup | None = None

    def __init__(self, job: StageJob, parts: StageParts) -> None:
        self.job, self.parts = job, parts
        self.gradient: GradientEstimator = ExactGradient()

    def open(self, console: Console) -> Session:
        self.session = self._open_session(console)
        self.before = self._fingerprint()
        return self.session

    def _open_session(self, console: Console) -> Session:
        return open_session(self.parts, self.job.folder, console)

    def _fingerprint(self) -> dict[str, str]:
        return fingerprint(self.session.network)

    @property
    def batches(self) -> Steps:
        return self.session.batches

    def begin(self) -> State:
        return State(beginning=self._beginning)

    @cached_property
    def _beginning(self) -> Beginning | None:
        return starting_point(self.job, self.before)

    @cached_property
    def _validator(self) -> Validator | None:
        return validator(self.parts, self.session.valid, self.session.device)

    def restore(self, checkpoint: Path) -> State:
        found = self._read(checkpoint)
        state = State.from_json(found.state)
        if self._beginning is not None and state.beginning is not None:
            state.beginning.require_same(self._beginning, self.job.starts_from)
            self.before = state.beginning.tensors or self.before
        freezing.load_trainable(self.session.network, self.session.plans, found.model)
        load_state_tensors(self.session.optimizer, self.session.parameter_names, found.optimizer)
        return state

    def _read(self, checkpoint: Path) -> Checkpoint:
        return read_checkpoint(checkpoint)

    def capture(self, state: State) -> Checkpoint | None:
        return Checkpoint(
            step=state.step,
            model=freezing.trainable_state_dict(self.session.network, self.session.plans),
            optimizer=state_tensors(self.session.optimizer, self.session.parameter_names),
            state=state.to_json(),
        )

    def validate(self) -> dict[str, float] | None:
        return None if self._validator is None else self._validator(self.session.model, self.session.network)

    def ask(self, question: Callable[[Network], T]) -> T:
        return question(self.session.network)

    def agree(self, value: T) -> T:
        return value

    def any(self, flag: bool) -> bool:
        return flag

    def close(self, state: State) -> TrainedWeights:
        if state.best is not None:
            best = load_best(self.job.folder / "checkpoints", state.best.folder)
            freezing.load_trainable(self.session.network, self.session.plans, best)
        return TrainedWeights(plans=self.session.plans, before=self.before)


def starting_point(job: StageJob, tensors: dict[str, str]) -> Beginning:
    """What a stage begins with: the files of the model that it starts from, and the fingerprint of its network."""
    origin = job.starts_from
    return Beginning(files=model_files(origin) if origin else {}, tensors=tensors)
