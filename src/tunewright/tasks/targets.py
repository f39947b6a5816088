"""How a target column becomes a tensor, and the network's output becomes a prediction again."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch
from torch import Tensor

from tunewright.data.prepare import Prepared
from tunewright.errors import DataError


@dataclass(frozen=True, kw_only=True)
class TargetEncoder:
    """Classes by their index; or numbers, standardised on the training split so that one learning rate fits all units."""

    column: str
    classes: list[str] | None
    mean: float = 0.0
    std: float = 1.0

    @property
    def outputs(self) -> int:
        """The size of the network's output: K logits, or 1."""
        return len(self.classes) if self.classes is not None else 1

    def encode(self, table: pa.Table) -> Tensor:
        """[N] int64 class indices, or [N] float32 standardised numbers.

        Raises:
            DataError: a value that is none of the classes.
        """
        values = table[self.column]
        if self.classes is None:
            return torch.from_numpy(((values.to_numpy() - self.mean) / self.std).astype(np.float32))
        indices = pc.index_in(values.cast(pa.string()), pa.array(self.classes))
        if indices.null_count:
            position = pc.is_null(indices).to_pylist().index(True)
            raise DataError(
                f"the target {self.column!r} has a value that is none of the model's classes",
                place=f"row {table['_row'][position].as_py()}",
                found=values[position].as_py(),
                expected=f"one of {', '.join(self.classes[:20])}",
                fix="correct the value, or give the network a new head (model.head)",
            )
        return torch.from_numpy(indices.to_numpy().astype(np.int64))

    def decode(self, outputs: Tensor) -> np.ndarray:
        """Logits [N, K] as they are, or the standardised [N, 1] as [N] numbers in the target's own unit."""
        array = outputs.cpu().double().numpy()
        return array if self.classes is not None else array.reshape(-1) * self.std + self.mean

    def truth(self, target: Tensor) -> np.ndarray:
        """What `encode` gave, as the metrics want it: class indices, or numbers in the target's own unit."""
        array = target.cpu().numpy()
        return array if self.classes is not None else array.astype(np.float64) * self.std + self.mean

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def fit_target(prepared: Prepared) -> TargetEncoder | None:
    """The encoder for a prepared set's target; None for unlabelled data.

    Raises:
        DataError: fewer than two classes, or a number that never changes.
    """
    manifest = prepared.manifest
    if manifest.target is None:
        return None
    if manifest.target_kind == "category":
        classes = manifest.classes or []
        if len(classes) < 2:
            raise DataError(
                f"the target {manifest.target!r} has {len(classes)} class",
                file=manifest.source,
                found=", ".join(classes),
                expected="at least two classes",
                fix="name another column with data.target, or set data.labelled: false",
            )
        return TargetEncoder(column=manifest.target, classes=classes)
    values = prepared.table("train", [manifest.target])[manifest.target].to_numpy()
    std = float(values.std())
    if not std > 0:
        raise DataError(
            f"the target {manifest.target!r} has the same value in every training row",
            file=manifest.source,
            found=values[0] if len(values) else "no rows",
            expected="numbers that differ",
            fix="name another column with data.target",
        )
    return TargetEncoder(column=manifest.target, classes=None, mean=float(values.mean()), std=std)
