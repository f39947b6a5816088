"""Several processes each hold the whole network, take a part of every batch, and add up their gradients."""

from __future__ import annotations

from functools import cached_property
from typing import TypeVar

from tunewright.console import Console
from tunewright.models.core.meta_weights import Weights
from tunewright.pipeline.build.parts import StageParts
from tunewright.pipeline.session.session import Session, open_session
from tunewright.pipeline.stage import StageJob
from tunewright.pipeline.strategies.base import TrainedWeights
from tunewright.pipeline.strategies.single import SingleProcess, starting_point
from tunewright.pipeline.strategies.stage_order import order_of
from tunewright.pipeline.strategies.validation import Validator, validator
from tunewright.training.checkpoints.beginning import Beginning
from tunewright.training.checkpoints.checkpoint import Checkpoint
from tunewright.training.distributed.process_group import ProcessGroup
from tunewright.training.gradients import AllReducedGradient
from tunewright.training.state import State

T = TypeVar("T")


class Replicated(SingleProcess):
    """See `Strategy`. The first process alone writes; the others follow it."""

    weights: Weights = "pretrained"
    """What the networks of the other processes are made with."""

    def __init__(self, job: StageJob, parts: StageParts, group: ProcessGroup) -> None:
        super().__init__(job, parts)
        self.group = group
        self.is_writer = group.is_writer
        self.gradient = AllReducedGradient(group)

    def _open_session(self, console: Console) -> Session:
        session = open_session(self.parts, self.job.folder, console, group=self.group)
        if self.is_writer:  # now that what is kept on disk is there
            self.group.broadcast(order_of(self.job, session, self.weights).to_json())
        return session

    def _fingerprint(self) -> dict[str, str]:
        return super()._fingerprint() if self.is_writer else {}

    @cached_property
    def _beginning(self) -> Beginning | None:
        return starting_point(self.job, self.before) if self.is_writer else None

    @cached_property
    def _validator(self) -> Validator | None:
        session = self.session
        return validator(self.parts, session.valid, session.device, self.group, whole_table=self.is_writer)

    def capture(self, state: State) -> Checkpoint | None:
        return super().capture(state) if self.is_writer else None

    def validate(self) -> dict[str, float] | None:
        return self.agree(super().validate())

    def agree(self, value: T) -> T:
        return self.group.broadcast(value)

    def any(self, flag: bool) -> bool:
        return self.group.any(flag)

    def close(self, state: State) -> TrainedWeights:
        return super().close(state) if self.is_writer else TrainedWeights(plans=[], before={})
