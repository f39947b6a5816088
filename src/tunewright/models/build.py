"""From the recipe's `model` block to the spec of a network of our own layers, and from that to the network."""

from __future__ import annotations

import inspect
from collections import OrderedDict
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from torch import nn

from tunewright.errors import ArtifactError, RecipeError
from tunewright.models.core.layers import LayerMismatch, Shape, build_layer, resolve_auto, seeded
from tunewright.models.core.mlp import mlp
from tunewright.models.core.network import SequentialNetwork
from tunewright.models.core.spec import SequentialSpec
from tunewright.models.hub.untrusted_files import require_memory
from tunewright.models.recommendation.ctr import CLICK_MODELS
from tunewright.models.vision.efficientnet import efficientnet_lite0
from tunewright.models.vision.resnet import large_resnet, small_resnet
from tunewright.plugins import Registry
from tunewright.random import mix
from tunewright.recipe.named import check_options, choose, parse_named
from tunewright.recipe.schema import Layer, Model

# A block's name, and a layer of the list or a function that makes the module.
NamedBlock = tuple[str, Layer | Callable[[], nn.Module]]

RESNETS: dict[str, Callable[..., Sequence[NamedBlock]]] = {
    **{f"resnet{depth}": small_resnet(depth) for depth in (20, 32, 44, 56, 110)},
    "resnet18": large_resnet((2, 2, 2, 2), bottleneck=False),
    "resnet34": large_resnet((3, 4, 6, 3), bottleneck=False),
    "resnet50": large_resnet((3, 4, 6, 3), bottleneck=True),
}
# Each gives the named blocks of a backbone for an input shape: a layer of the list, or a function that makes a module. Its
# keyword-only parameters are the options of `model.backbone`.
MODELS = Registry[Callable[..., Sequence[NamedBlock]]](
    "tunewright.models",
    {"mlp": mlp, **RESNETS, "efficientnet-lite0": efficientnet_lite0, **CLICK_MODELS},
)


def describe_model(model: Model, *, input_shape: Shape, outputs: int) -> SequentialSpec:
    """Return the spec of the network that the recipe asks for.

    Without `head`, the last layer of `layers` is the head; a named backbone gets one dense layer as its head.

    Raises:
        RecipeError: an unknown name, a layer that does not fit, or a head of another size than the data asks for.
    """
    if model.backbone is not None:
        if model.layers is not None:
            raise RecipeError(
                "the network is defined twice", place="model", found="both layers and backbone", fix="keep one of them"
            )
        name, given = parse_named(model.backbone, "model.backbone")
        options = check_options(choose(MODELS, name, "model.backbone"), given, f"model.backbone.{name}")
        backbone: dict[str, Any] = {"name": name, "options": options}
        head = model.head or [{"dense": "auto"}]
    else:
        layers = list(model.layers or [])
        if not layers:
            raise RecipeError(
                "the list of layers is empty", place="model.layers", fix="model.layers: [flatten, {dense: auto}]"
            )
        head = model.head if model.head is not None else layers[-1:]
        backbone = {"layers": layers if model.head is not None else layers[:-1]}
    spec = SequentialSpec(
        backbone=backbone, head=resolve_auto(head, outputs), input_shape=tuple(input_shape), outputs=outputs
    )
    with torch.device("meta"):
        assemble(spec, lambda name, make: make())
    return spec


def build_network(spec: SequentialSpec, *, seed: int) -> SequentialNetwork:
    """Build the network, with starting weights that depend on the seed and each block's name alone.

    Raises:
        RecipeError: the layers do not fit together.
        ArtifactError: the network is larger than the machine's memory.
    """
    require_memory(lambda: assemble(spec, lambda name, make: make()), file=None)
    return assemble(spec, lambda name, make: seeded(mix(seed, name), make))


def assemble(spec: SequentialSpec, make: Callable[[str, Callable[[], nn.Module]], nn.Module]) -> SequentialNetwork:
    """Return the network of a spec; `make(block name, function)` makes each block."""
    shape: Shape = spec.input_shape
    given = spec.backbone
    if "layers" in given:
        named: Sequence[NamedBlock] = [(layer_name(index, layer), layer) for index, layer in enumerate(given["layers"])]
    else:
        named = named_blocks(given, shape)
    backbone, shape = _sequence("backbone", named, shape, make, "model.layers")
    head_layers = [(layer_name(index, layer), layer) for index, layer in enumerate(spec.head)]
    head, shape = _sequence("head", head_layers, shape, make, "model.head")
    if shape != (spec.outputs,):
        raise RecipeError(
            f"the network's output has the shape {list(shape)}, the data needs [{spec.outputs}]",
            place="model.head",
            found=spec.head[-1] if spec.head else "an empty head",
            expected=f"{spec.outputs} outputs",
            fix="end the network with {dense: auto}",
        )
    return SequentialNetwork(backbone, head, spec)


def layer_name(index: int, layer: Layer) -> str:
    """Return a block's name: its position and kind."""
    return f"{index}_{layer if isinstance(layer, str) else next(iter(layer), 'empty')}"


def shape_after(module: nn.Module, shape: Shape) -> Shape:
    """Return the shape that a module makes of one example of `shape`, found by a pass without memory or arithmetic."""
    import copy

    ghost = copy.deepcopy(module).to("meta").eval()
    with torch.no_grad():
        return tuple(ghost(torch.empty(1, *shape, device="meta")).shape[1:])


def named_blocks(given: dict[str, Any], shape: Shape) -> Sequence[NamedBlock]:
    """Return the blocks of a backbone of the table.

    Raises:
        ArtifactError: the package that adds the backbone is not installed.
        RecipeError: it refuses its options.
    """
    name, options = given["name"], given["options"]
    if name not in MODELS:
        raise ArtifactError(
            "there is no backbone of this name",
            place=f"model.backbone.{name}",
            found=name,
            expected=", ".join(MODELS),
            fix="install the package that adds it",
        )
    try:
        return MODELS[name](shape, **options)
    except LayerMismatch as error:
        raise RecipeError(str(error), place=f"model.backbone.{name}", expected=error.expected, fix=error.fix) from None
    except (TypeError, ValueError) as error:
        allowed = ", ".join(list(inspect.signature(MODELS[name]).parameters)[1:])
        raise RecipeError(
            f"the backbone does not accept its options: {error}",
            place=f"model.backbone.{name}",
            found=options,
            expected=allowed,
        ) from error


def _sequence(
    part: str,
    named: Sequence[NamedBlock],
    shape: Shape,
    make: Callable[[str, Callable[[], nn.Module]], nn.Module],
    place: str,
) -> tuple[nn.Sequential, Shape]:
    modules: OrderedDict[str, nn.Module] = OrderedDict()
    for index, (name, block) in enumerate(named):
        if not isinstance(block, str | dict):
            modules[name] = make(f"{part}.{name}", block)
            shape = shape_after(modules[name], shape)
            continue
        where = f"{place}, layer {index + 1}"
        modules[name] = make(f"{part}.{name}", partial(_module, block, shape, where))
        with torch.device("meta"):
            _, shape = build_layer(block, shape, where)
    return nn.Sequential(modules), shape


def _module(layer: Layer, shape: Shape, place: str) -> nn.Module:
    return build_layer(layer, shape, place)[0]
