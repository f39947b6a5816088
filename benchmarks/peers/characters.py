"""The characters of a training text as numbers, and the loss that both language models are measured by."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional as F


@dataclass(frozen=True)
class Characters:
    names: list[str]

    @staticmethod
    def of(folder: Path) -> Characters:
        return Characters(sorted(set((folder / "train.txt").read_text(encoding="utf-8"))))

    def ids(self, text: str) -> Tensor:
        numbers = {name: number for number, name in enumerate(self.names)}
        return torch.tensor([numbers[character] for character in text if character in numbers])


def validation_loss(model: Callable[[Tensor], Tensor], ids: Tensor, context: int) -> float:
    """Mean −log p of the next character, in nats, over all windows of `context` characters side by side."""
    windows = (len(ids) - 1) // context
    inputs = ids[: windows * context].view(windows, context)
    targets = ids[1 : windows * context + 1].view(windows, context)
    total = 0.0
    with torch.no_grad():
        for part, wanted in zip(inputs.split(256), targets.split(256)):
            total += F.cross_entropy(model(part).flatten(0, 1), wanted.flatten(), reduction="sum").item()
    return total / targets.numel()
