"""Keep the best weights by a validation metric, and stop when it no longer improves."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from tunewright.evaluation.metrics import METRICS
from tunewright.training.state import Best, State


@dataclass(frozen=True, kw_only=True)
class Selection:
    """Keeps the best weights by one validation metric, and stops early when it no longer improves."""

    metric: str
    patience: int | None

    def update(self, state: State, valid: dict[str, float], keep: Callable[[], str]) -> None:
        value = valid.get(self.metric)
        if value is not None and self._is_better(value, state.best):
            state.best = Best(epoch=state.epoch, step=state.step, value=value, folder=keep())
            state.epochs_since_best = 0
            return
        state.epochs_since_best += 1
        if self.patience is not None and state.epochs_since_best >= self.patience:
            state.finished = "early stopping"

    def _is_better(self, value: float, best: Best | None) -> bool:
        greater = self.metric != "loss" and METRICS[self.metric].greater_is_better
        return best is None or (value > best.value if greater else value < best.value)
