"""Say what would help most: more data, a larger network, more regularisation, or longer training; and why."""

from __future__ import annotations

from collections.abc import Sequence

from tunewright.runs.metrics_log import LOSS, EpochLine
from tunewright.runs.summary.evaluation import HintSummary


def hint(epochs: Sequence[EpochLine], linear: float | None, reached: float | None, metric: str) -> HintSummary:
    """Say what would help most, by the learning curves.

    Args:
        epochs: the epochs of metrics.jsonl.
        linear: the linear baseline's value of the headline metric, and
        reached: the network's; None where not measured. Greater is better for both.

    The rules, in order: validation loss risen by over 10 % since its lowest while the training loss still falls:
    overfitting. Validation loss still falling by over 2 % an epoch at the end: longer. Validation loss over 1.5 times the
    training loss: more data. Not above the linear model: a larger network or better features. Otherwise nothing.
    """
    measured = [(line, line.valid[LOSS]) for line in epochs if line.valid is not None and LOSS in line.valid]
    if len(measured) < 2:
        return HintSummary(
            "unknown", "fewer than two epochs were measured on validation data, so the curves say nothing"
        )
    train = [line.train_loss for line, _ in measured]
    valid = [loss for _, loss in measured]
    lowest = min(range(len(valid)), key=valid.__getitem__)
    last = f"training loss {train[-1]:.4f}, validation loss {valid[-1]:.4f}"
    if valid[-1] > 1.1 * valid[lowest] and train[-1] < train[lowest]:
        return HintSummary(
            "more regularization",
            f"the validation loss rose from {valid[lowest]:.4f} in epoch {measured[lowest][0].epoch} to {valid[-1]:.4f}, while the "
            f"training loss fell from {train[lowest]:.4f} to {train[-1]:.4f}: try dropout, weight decay, early stopping, or more data",
        )
    if valid[-1] < 0.98 * valid[-2] and lowest == len(valid) - 1:
        return HintSummary(
            "longer training",
            f"the validation loss still fell by {1 - valid[-1] / valid[-2]:.1%} in the last epoch ({last})",
        )
    if valid[-1] > 1.5 * max(train[-1], 1e-9) and valid[-1] > 0.01:
        return HintSummary(
            "more data",
            f"the validation loss is {valid[-1] / max(train[-1], 1e-9):.1f} times the training loss ({last})",
        )
    if linear is not None and reached is not None and reached <= linear:
        return HintSummary(
            "more capacity",
            f"{metric} {reached:.4f} is not above the linear model's {linear:.4f}, and the curves are flat ({last}): "
            "try a larger network, another learning rate, or better inputs",
        )
    return HintSummary("nothing obvious", f"the curves are flat and close to each other ({last})")
