"""The prepared data as the checks need it: all splits together, at most so many rows, and inputs as numbers."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from tunewright.data.manifest import Column, Manifest
from tunewright.data.prepare.multilabel import label_matrix
from tunewright.data.prepared import Prepared, column_array
from tunewright.random import permutation

MOST_ROWS = 500_000
MOST_CATEGORIES = 50


@dataclass(frozen=True)
class Material:
    """What every check looks at."""

    prepared: Prepared
    seed: int
    recipe: str
    """The recipe's path, to be named in commands."""

    @property
    def manifest(self) -> Manifest:
        return self.prepared.manifest

    @cached_property
    def table(self) -> pa.Table:
        """All splits one after another, with a column `_split`; the first MOST_ROWS of each."""
        parts: list[pa.Table] = []
        for split in self.manifest.splits:
            part = self.prepared.table(split).slice(0, MOST_ROWS)
            parts.append(part.append_column("_split", pa.array([split] * part.num_rows)))
        return pa.concat_tables(parts)

    @cached_property
    def rows(self) -> np.ndarray:
        return self.table["_row"].to_numpy()

    @cached_property
    def splits(self) -> np.ndarray:
        return np.array(self.table["_split"].to_pylist())

    @cached_property
    def labels(self) -> np.ndarray | None:
        """[N] class indices of the target; None where it is no class, or several."""
        manifest = self.manifest
        if manifest.target is None or manifest.classes is None or manifest.target_kind == "labels":
            return None
        return pc.index_in(self.table[manifest.target], pa.array(manifest.classes)).to_numpy().astype(np.int64)

    @cached_property
    def label_sets(self) -> np.ndarray | None:
        """[N, K] uint8, 1 where a row has a class; None where the target has not several."""
        manifest = self.manifest
        if manifest.target is None or manifest.target_kind != "labels":
            return None
        return label_matrix(self.table[manifest.target], manifest.classes or [])

    @property
    def inputs(self) -> list[Column]:
        return [self.manifest.column(name) for name in self.manifest.input]

    @property
    def pixels(self) -> np.ndarray | None:
        """[N, H, W, C] uint8 of the image input; None where there is none."""
        images = [column for column in self.inputs if column.kind == "image"]
        return column_array(self.table, images[0]) if images else None

    def sample(self, most: int, where: np.ndarray | None = None) -> np.ndarray:
        """Positions of at most so many rows, in order, drawn by the seed."""
        candidates = np.arange(len(self.rows)) if where is None else np.flatnonzero(where)
        if len(candidates) <= most:
            return candidates
        return np.sort(candidates[permutation(self.seed, "check", 0, len(candidates))[:most]])

    def numbers(self, positions: np.ndarray) -> np.ndarray:
        """Return [n, F] float32 of the inputs at these positions: pixels made small, numbers standardised, categories one-hot."""
        parts: list[np.ndarray] = []
        taken = self.table.take(pa.array(positions))
        for column in self.inputs:
            if column.kind == "image":
                parts.append(shrink(column_array(taken, column)))
            elif column.kind == "array":
                parts.append(column_array(taken, column).reshape(len(positions), -1).astype(np.float32))
            elif column.kind == "number":
                values = taken[column.name].to_numpy().astype(np.float64)
                present = values[np.isfinite(values)]
                centre, spread = (present.mean(), present.std()) if len(present) else (0.0, 0.0)
                scaled = np.where(np.isfinite(values), (values - centre) / (spread or 1.0), 0.0)
                parts.append(scaled[:, None].astype(np.float32))
            elif column.kind == "category":
                counted = pc.value_counts(taken[column.name].drop_null()).to_pylist()
                names = [entry["values"] for entry in sorted(counted, key=lambda entry: -entry["counts"])]
                index = pc.fill_null(
                    pc.index_in(taken[column.name], pa.array(names[:MOST_CATEGORIES], pa.string())), -1
                )
                parts.append((index.to_numpy()[:, None] == np.arange(len(names[:MOST_CATEGORIES]))).astype(np.float32))
        return np.concatenate(parts, axis=1) if parts else np.empty((len(positions), 0), np.float32)

    def name_row(self, position: int) -> str:
        """ "row 17 (train)" """
        return f"row {self.rows[position]} ({self.splits[position]})"


def shrink(pixels: np.ndarray) -> np.ndarray:
    """Turn images [N, H, W, C] uint8 into [N, F] in [0, 1], by means over squares so that neither side is longer than 16."""
    count, height, width, channels = pixels.shape
    step = max(1, -(-max(height, width) // 16))
    cut = pixels[:, : height - height % step, : width - width % step]
    blocks = cut.reshape(count, height // step, step, width // step, step, channels)
    return (blocks.mean((2, 4), dtype=np.float32) / 255).reshape(count, -1)
