"""Several processes each hold a shard of every weight, gradient and optimiser state (see `training/distributed/fsdp.py`)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import cached_property, partial
from pathlib import Path
from typing import TypeVar

from tunewright.console import Console, silent
from tunewright.models.core.meta_weights import Weights
from tunewright.models.core.network import Network
from tunewright.pipeline.build.parts import StageParts
from tunewright.pipeline.session.session import Session, training_optimizer
from tunewright.pipeline.stage import StageJob
from tunewright.pipeline.strategies.base import TrainedWeights
from tunewright.pipeline.strategies.partial_weights import fill, write
from tunewright.pipeline.strategies.replicated import Replicated
from tunewright.pipeline.strategies.single import SingleProcess, starting_point
from tunewright.pipeline.strategies.validation import Validator, validator
from tunewright.training import freezing
from tunewright.training.checkpoints.beginning import Beginning
from tunewright.training.checkpoints.checkpoint import Checkpoint, find_newest, load_best, read_checkpoint
from tunewright.training.distributed.dtensors import divided_alike
from tunewright.training.distributed.fsdp import ShardedObjective, run_sharded, shard
from tunewright.training.distributed.process_group import ProcessGroup
from tunewright.training.freeze_certificate import fingerprint
from tunewright.training.gradients import AllReducedGradient
from tunewright.training.state import State

T = TypeVar("T")


class Sharded(Replicated):
    """See `Strategy`. The first process also keeps the whole network, on the processor, and every process writes its shard."""

    weights: Weights = "meta"

    def __init__(self, job: StageJob, parts: StageParts, group: ProcessGroup) -> None:
        super().__init__(job, parts, group)
        self.writers = group

    def open(self, console: Console) -> Session:
        session = super().open(console)
        self.whole_plans = session.plans
        self.session = self._shard(session, None)
        return self.session

    def _shard(self, session: Session, fill: Callable[[Network], None] | None) -> Session:
        """The session with a sharded copy of its network.

        Args:
            fill: gives the copy this process's shards; None: they are taken from the first process's network.
        """
        recipe, parts = session.recipe, self.parts
        sharded, self.rows = shard(
            session.network,
            self.group,
            tensor=recipe.hardware.tensor,
            offload=recipe.hardware.offload,
            fill=fill,
        )
        plans = freezing.resolve_trainable(sharded.network, parts.tune)
        groups = [
            {**group, "params": alike}
            for group in freezing.parameter_groups(plans, parts.lr)
            for alike in divided_alike(group["params"])
        ]
        self.gradient = AllReducedGradient(self.rows)
        return replace(
            session,
            network=sharded.network,
            model=sharded,
            plans=plans,
            batches=replace(session.batches, in_step=True, part=self.rows.rank, parts=self.rows.size),
            objective=ShardedObjective(session.objective),
            optimizer=training_optimizer(recipe, sharded.network, groups, parts.lr),
        )

    @cached_property
    def _validator(self) -> Validator | None:
        return validator(self.parts, self.session.valid, self.session.device, self.rows)

    def _read(self, checkpoint: Path) -> Checkpoint:
        return read_checkpoint(checkpoint, dict(self.session.network.named_parameters()))

    def capture(self, state: State) -> Checkpoint | None:
        return SingleProcess.capture(self, state)

    def validate(self) -> dict[str, float] | None:
        if (measure := self._validator) is None:
            return self.agree(None)
        return self.agree(run_sharded(self.session.model, lambda network: measure(network, network)))

    def ask(self, question: Callable[[Network], T]) -> T:
        return run_sharded(self.session.model, question)

    def close(self, state: State) -> TrainedWeights:
        if self.is_writer:
            folder = self.job.folder / "checkpoints"
            if state.best is not None:
                freezing.load_trainable(self.parts.network, self.whole_plans, load_best(folder, state.best.folder))
            elif (newest := find_newest(folder, silent().warning)) is not None:
                freezing.load_trainable(self.parts.network, self.whole_plans, read_checkpoint(newest).model)
        return TrainedWeights(plans=self.whole_plans, before=self.before)


class NeverMaterialised(Sharded):
    """Like `Sharded`, and the network is whole in no process: each reads or draws its own shards, and writes them in the end."""

    weights: Weights = "sharded"

    def open(self, console: Console) -> Session:
        session = self._open_session(console)
        self.whole_plans = session.plans
        self.session = self._shard(session, partial(fill, parts=self.parts, job=self.job))
        self.before = fingerprint(self.session.network)
        return self.session

    @cached_property
    def _beginning(self) -> Beginning | None:
        return starting_point(self.job, {}) if self.is_writer else None  # its files say what it began with

    def close(self, state: State) -> TrainedWeights:
        network, plans = self.session.network, self.session.plans
        folder = self.job.folder
        if state.best is not None:
            shards = dict(network.named_parameters())
            best = load_best(folder / "checkpoints", state.best.folder, shards, checked=self.is_writer)
            freezing.load_trainable(network, plans, best)
        after = fingerprint(network)
        trained = freezing.trainable_state_dict(network, plans)
        write(folder / "model", network, self.parts.network, trained, self.group)
        return TrainedWeights(plans=self.whole_plans, before=self.before, after=after)
