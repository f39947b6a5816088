"""MNIST as arrays, the same for every peer that does not bring its own reader."""

from __future__ import annotations

import gzip
from pathlib import Path

import numpy as np


def load(folder: str | Path) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """x_train [60000, 28, 28] uint8, y_train [60000], x_test [10000, 28, 28], y_test [10000]."""

    def read(name: str, start: int) -> np.ndarray:
        return np.frombuffer(gzip.decompress((Path(folder) / name).read_bytes()), np.uint8, offset=start)

    return (
        read("train-images-idx3-ubyte.gz", 16).reshape(-1, 28, 28),
        read("train-labels-idx1-ubyte.gz", 8),
        read("t10k-images-idx3-ubyte.gz", 16).reshape(-1, 28, 28),
        read("t10k-labels-idx1-ubyte.gz", 8),
    )
