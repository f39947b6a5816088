"""The multi-layer perceptron: dense layers, one after another."""

from __future__ import annotations

from tunewright.models.core.layers import Shape
from tunewright.recipe.schema import Layer


def mlp(
    shape: Shape, *, hidden: tuple[int, ...] = (128,), dropout: float = 0.0, activation: str = "relu"
) -> list[tuple[str, Layer]]:
    """Named blocks: flatten where needed, then a dense layer for each entry of `hidden`, with dropout behind it.

    Args:
        shape: one example's shape.
    """
    blocks: list[tuple[str, Layer]] = [("flatten", "flatten")] if len(shape) > 1 else []
    for number, units in enumerate(hidden, start=1):
        blocks.append((f"dense{number}", {"dense": units, "activation": activation}))
        if dropout:
            blocks.append((f"dropout{number}", {"dropout": dropout}))
    return blocks
