"""Taking networks apart: a new head on an old backbone, inputs of another size."""

from __future__ import annotations

from typing import Any

from tunewright.errors import RecipeError
from tunewright.models.build import assemble, build_network
from tunewright.models.core.layers import resolve_auto
from tunewright.models.core.network import SequentialNetwork
from tunewright.recipe.schema import Layer


def replace_head(network: SequentialNetwork, head: list[Layer], *, outputs: int, seed: int) -> SequentialNetwork:
    """The network's own backbone, the very same tensors, under a new head.

    Raises:
        RecipeError: the head does not fit the backbone or the number of outputs.
    """
    described: dict[str, Any] = {**network.spec, "head": resolve_auto(head, outputs), "outputs": outputs}
    fresh = build_network(described, seed=seed)
    return SequentialNetwork(network.backbone, fresh.head, described)


def fit_input(network: SequentialNetwork, shape: tuple[int, ...]) -> SequentialNetwork:
    """The network for inputs of this shape: itself, or, where only the size of the image differs and every block can
    read it, the same tensors described for the new size.

    Raises:
        RecipeError: the network cannot read such inputs.
    """
    made_for = tuple(network.spec["input_shape"])
    if shape == made_for:
        return network
    if len(shape) == len(made_for) == 3 and shape[0] == made_for[0]:
        described = {**network.spec, "input_shape": list(shape)}
        other = _ghost(described)
        if other is not None and _shapes(other) == _shapes(network):
            return SequentialNetwork(network.backbone, network.head, described)
        fix = f"data: {{resize: [{made_for[1]}, {made_for[2]}]}}"
    elif len(shape) == 3:
        fix = "use images with as many channels, or train from scratch on these"
    else:
        fix = "give the data the same columns, or train from scratch on this data"
    raise RecipeError(
        f"the network was made for inputs of {_times(made_for)}, the data has {_times(shape)}",
        place="data",
        found=_times(shape),
        expected=_times(made_for),
        fix=fix,
    )


def _ghost(described: dict[str, Any]) -> SequentialNetwork | None:
    import torch

    try:
        with torch.device("meta"):
            return assemble(described, lambda name, make: make())
    except RecipeError:
        return None


def _shapes(network: SequentialNetwork) -> dict[str, tuple[int, ...]]:
    return {name: tuple(value.shape) for name, value in network.state_dict().items()}


def _times(shape: tuple[int, ...]) -> str:
    return "×".join(map(str, shape))
