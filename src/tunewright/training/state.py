"""The state of a training: all that a step depends on besides the data and the seed."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from tunewright.training.checkpoints.beginning import Beginning
from tunewright.training.gradients import StepLoss


@dataclass(kw_only=True)
class Best:
    """The best validation result so far, and the folder of its weights."""

    epoch: int
    step: int
    value: float
    folder: str


@dataclass(kw_only=True)
class State:
    """The progress of a training; with the weights and the optimiser's state, all that a checkpoint holds."""

    epoch: int = 0
    """Complete epochs."""
    step: int = 0
    """Optimiser steps, over all epochs."""
    step_in_epoch: int = 0
    loss_sum: float = 0.0
    """The sum of the losses over this epoch's examples so far."""
    weight_sum: float = 0.0
    first_loss: float | None = None
    last_loss: float | None = None
    same_losses: int = 0
    """How many consecutive steps after the warm-up had exactly this loss."""
    warm_rate: float = 0.0
    """The largest learning rate in this epoch after the warm-up; 0: no such step yet."""
    weights: str | None = None
    """A digest of the trained weights at the start of this epoch."""
    seconds: float = 0.0
    """Time spent training, over all runs of it."""
    examples: int = 0
    best: Best | None = None
    epochs_since_best: int = 0
    finished: str | None = None
    """Why the training is over; None while it is not."""
    beginning: Beginning | None = None
    """What the training began with; None: this process writes no checkpoints."""

    def count(self, loss: StepLoss) -> None:
        """Add a step that was taken."""
        self.step += 1
        self.step_in_epoch += 1
        self.loss_sum += loss.total
        self.weight_sum += loss.weight
        self.examples += loss.examples

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> State:
        state = cls(**value)
        state.best = Best(**value["best"]) if value["best"] else None
        beginning = value.get("beginning")
        state.beginning = Beginning(**beginning) if beginning else None
        return state
