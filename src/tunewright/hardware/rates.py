"""What this machine can do at most."""

from __future__ import annotations

import time

import torch

SIDE, SECONDS = 1024, 0.5


def product_rate() -> float:
    """Floating-point operations a second of the fastest of some products of float32 matrices, 1024 × 1024, on the processor."""
    left, right = torch.ones(SIDE, SIDE), torch.ones(SIDE, SIDE)
    best, began = float("inf"), time.perf_counter()
    while time.perf_counter() - began < SECONDS:
        started = time.perf_counter()
        torch.mm(left, right)
        best = min(best, time.perf_counter() - started)
    return 2 * SIDE**3 / best
