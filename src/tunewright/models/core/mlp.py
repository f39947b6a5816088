"""Define the multi-layer perceptron: dense layers, one after another."""

from __future__ import annotations

from collections.abc import Sequence

from tunewright.models.core.layers import Shape
from tunewright.recipe.schema import Layer


def mlp(
    shape: Shape, *, hidden: Sequence[int] = (128,), dropout: float = 0.0, activation: str = "relu"
) -> list[tuple[str, Layer]]:
    """Return named blocks: flatten where needed, then for each entry of `hidden` a dense layer followed by dropout.

    Args:
        shape: the shape of one example.
    """
    blocks: list[tuple[str, Layer]] = [("flatten", "flatten")] if len(shape) > 1 else []
    for number, units in enumerate(hidden, start=1):
        blocks.append((f"dense{number}", {"dense": units, "activation": activation}))
        if dropout:
            blocks.append((f"dropout{number}", {"dropout": dropout}))
    return blocks
