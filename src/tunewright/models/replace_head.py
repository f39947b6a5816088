"""Put a new head on a trained backbone, or fit a network to inputs of another size."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import torch

from tunewright.errors import ArtifactError, RecipeError
from tunewright.models.build import assemble, build_network
from tunewright.models.core.layers import resolve_auto
from tunewright.models.core.network import Network, SequentialNetwork
from tunewright.models.core.spec import SequentialSpec
from tunewright.recipe.schema import Layer


def require_sequential(network: Network, file: Path | None) -> SequentialNetwork:
    """Return the network of a saved model, which has to be one of our own layers.

    Raises:
        ArtifactError: it is another.
    """
    if not isinstance(network, SequentialNetwork):
        raise ArtifactError("the model to start from is not one of Tunewright's own networks", file=file)
    return network


def replace_head(network: SequentialNetwork, head: list[Layer], *, outputs: int, seed: int) -> SequentialNetwork:
    """Return the network's own backbone, the very same tensors, under a new head.

    Raises:
        RecipeError: the head does not fit the backbone or the number of outputs.
    """
    spec = replace(network.spec, head=resolve_auto(head, outputs), outputs=outputs)
    return SequentialNetwork(network.backbone, build_network(spec, seed=seed).head, spec)


def fit_input(network: SequentialNetwork, shape: tuple[int, ...]) -> SequentialNetwork:
    """Fit the network for inputs of this shape: itself, or, where only the size of the image differs and every block can
    read it, the same tensors described for the new size.

    Raises:
        RecipeError: the network cannot read such inputs.
    """
    made_for = network.spec.input_shape
    if shape == made_for:
        return network
    if len(shape) == len(made_for) == 3 and shape[0] == made_for[0]:
        spec = replace(network.spec, input_shape=shape)
        other = _on_meta(spec)
        if other is not None and _shapes(other) == _shapes(network):
            return SequentialNetwork(network.backbone, network.head, spec)
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


def _on_meta(spec: SequentialSpec) -> SequentialNetwork | None:
    try:
        with torch.device("meta"):
            return assemble(spec, lambda name, make: make())
    except RecipeError:
        return None


def _shapes(network: SequentialNetwork) -> dict[str, tuple[int, ...]]:
    return {name: tuple(value.shape) for name, value in network.state_dict().items()}


def _times(shape: tuple[int, ...]) -> str:
    return "×".join(map(str, shape))
