"""Convert networks that are lists of layers to `.keras` files and back, with Keras on the torch backend.

Images are [channels, height, width] here and [height, width, channels] in Keras, and are permuted before they are flattened.
Only layers with the same meaning on both sides are supported.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar, cast

import numpy as np
import torch
from jaxtyping import Float, Shaped
from torch import Tensor, nn

from tunewright.cached import cached_folder
from tunewright.checksums import known_sha256
from tunewright.errors import ArtifactError
from tunewright.files import cache_dir, write_json
from tunewright.models.build import assemble, named_blocks
from tunewright.models.core.layers import ACTIVATIONS, LastOutput, Shape, build_layer, split_layer
from tunewright.models.core.network import Network, SequentialNetwork
from tunewright.models.core.safe_weights import write_weights
from tunewright.models.core.spec import SequentialSpec
from tunewright.models.exchange.keras_untrusted import Config, KerasLayer, KerasModel, keras, open_foreign
from tunewright.recipe.schema import Layer

# The slope of our leaky_relu; Keras has another default.
LEAKY = 0.01
# The model type in a converted file's config.json, and the version of the conversion.
KIND, VERSION = "keras", 1
M = TypeVar("M", bound=nn.Module)


@dataclass
class _Writing:
    """Collect Keras layers, with the weights of each."""

    layers: list[KerasLayer] = field(default_factory=list)
    weights: list[list[Tensor]] = field(default_factory=list)

    def add(self, layer: KerasLayer, *weights: Tensor | None) -> None:
        self.layers.append(layer)
        self.weights.append([value for value in weights if value is not None])


@dataclass(frozen=True)
class _Part:
    """Hold one of our layers: its module, its input's shape, and its value and options in the recipe."""

    module: nn.Module
    shape: Shape
    value: Any
    options: Config


Writer = Callable[[_Writing, _Part], None]


def write_keras(network: Network, path: Path) -> KerasModel:
    """Write a network as a `.keras` file, and return the Keras model that is read back from it.

    Raises:
        ArtifactError: it is not a list of layers, or a part of it has no Keras layer.
    """
    if not isinstance(network, SequentialNetwork):
        raise ArtifactError(
            "only networks that are lists of layers can be exported to Keras",
            found=type(network).__name__,
            expected="model.layers in the recipe",
            fix="--to onnx",
        )
    library = keras()
    shape: Shape = network.spec.input_shape
    given = network.spec.backbone
    layers = given["layers"] if "layers" in given else [layer for _, layer in named_blocks(given, shape)]
    writing = _Writing()
    for block, layer in zip(network.blocks(), [*layers, *network.spec.head], strict=True):
        if callable(layer) or split_layer(layer)[0] not in WRITERS:
            raise ArtifactError(
                "Keras has no layer for a part of this network",
                found=block.title,
                expected=f"a list of {', '.join(sorted(WRITERS))}",
                fix="--to onnx takes any network",
            )
        kind, value, options = split_layer(layer)
        WRITERS[kind](writing, _Part(block.module, shape, value[0] if value else None, options))
        if (activation := options.get("activation")) is not None:
            _activate(writing, cast(str, activation))
        with torch.device("meta"):
            _, shape = build_layer(layer, shape, block.title)
    first = network.spec.input_shape
    model = library.Sequential([library.Input((*first[1:], first[0]) if len(first) == 3 else first), *writing.layers])
    for layer, weights in zip(model.layers, writing.weights, strict=True):
        layer.set_weights([value.detach().cpu().numpy() for value in weights])
    model.save(path)
    return library.saving.load_model(path, compile=False, safe_mode=True)


def applied(model: KerasModel, inputs: Shaped[Tensor, "batch ..."]) -> Float[Tensor, "batch ..."]:
    """Compute a Keras model's outputs for inputs in our order of dimensions."""
    there = inputs.permute(0, 2, 3, 1) if inputs.dim() == 4 else inputs
    return torch.from_numpy(np.array(model(there.contiguous(), training=False).detach().cpu()))


def _conv2d(writing: _Writing, part: _Part) -> None:
    layers, conv = keras().layers, _inner(part.module, nn.Conv2d)
    padding, stride = cast(int, conv.padding[0]), conv.stride[0]
    # With strides, Keras's "same" pads one side more than the other.
    same = padding > 0 and stride == 1 and 2 * padding == conv.kernel_size[0] - 1
    if padding and not same:
        writing.add(layers.ZeroPadding2D(padding))
    made = layers.Conv2D(
        conv.out_channels, conv.kernel_size, stride, "same" if same else "valid", use_bias=conv.bias is not None
    )
    writing.add(made, conv.weight.permute(2, 3, 1, 0), conv.bias)


def _dense(writing: _Writing, part: _Part) -> None:
    linear = _inner(part.module, nn.Linear)
    made = keras().layers.Dense(linear.out_features, use_bias=linear.bias is not None)  # pyright: ignore  torch's type has no None
    writing.add(made, linear.weight.T, linear.bias)


def _flatten(writing: _Writing, part: _Part) -> None:
    if len(part.shape) == 3:
        writing.add(keras().layers.Permute((3, 1, 2)))
    writing.add(keras().layers.Flatten())


def _pool(kind: str) -> Writer:
    def write(writing: _Writing, part: _Part) -> None:
        size = part.value or 2
        writing.add(getattr(keras().layers, kind)(size, part.options.get("stride") or size))

    return write


def _global_pool(writing: _Writing, part: _Part) -> None:
    writing.add(keras().layers.GlobalAveragePooling2D())


def _batch_norm(writing: _Writing, part: _Part) -> None:
    module = part.module
    assert isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d)
    made = keras().layers.BatchNormalization(momentum=1 - (module.momentum or 0.0), epsilon=module.eps)
    writing.add(made, module.weight, module.bias, module.running_mean, module.running_var)


def _layer_norm(writing: _Writing, part: _Part) -> None:
    module = part.module
    assert isinstance(module, nn.LayerNorm)
    image = len(part.shape) == 3
    made = keras().layers.LayerNormalization(axis=[1, 2, 3] if image else -1, epsilon=module.eps)
    weights = (module.weight, module.bias)
    writing.add(made, *(value.permute(1, 2, 0) for value in weights) if image else weights)


def _group_norm(writing: _Writing, part: _Part) -> None:
    module = part.module
    assert isinstance(module, nn.GroupNorm)
    writing.add(keras().layers.GroupNormalization(module.num_groups, epsilon=module.eps), module.weight, module.bias)


def _dropout(writing: _Writing, part: _Part) -> None:
    writing.add(keras().layers.Dropout(part.value))


def _embedding(writing: _Writing, part: _Part) -> None:
    table = _inner(part.module, nn.Embedding)
    writing.add(keras().layers.Embedding(table.num_embeddings, table.embedding_dim), table.weight)


def _recurrent(kind: str) -> Writer:
    def write(writing: _Writing, part: _Part) -> None:
        assert isinstance(part.module, LastOutput)
        layers, own = keras().layers, part.module.recurrent
        both, sequences = own.bidirectional, part.module.sequences
        made = getattr(layers, kind)(part.value, return_sequences=sequences or both)
        weights = [value for suffix in ("", "_reverse")[: 1 + both] for value in _gates(own, suffix, kind)]
        writing.add(layers.Bidirectional(made) if both else made, *weights)
        if both and not sequences:  # ours is both directions' output at the last step, Keras's each one's last output
            writing.add(layers.Cropping1D((part.shape[0] - 1, 0)))
            writing.add(layers.Flatten())

    return write


def _gates(own: nn.Module, suffix: str, kind: str) -> list[Tensor]:
    """Return a direction's weights in Keras's format: its GRU has the update gate first, its LSTM one bias."""

    def ordered(value: Tensor) -> Tensor:
        reset, update, new = value.chunk(3)
        return torch.cat([update, reset, new])

    inward, recurrent = own.get_parameter(f"weight_ih_l0{suffix}"), own.get_parameter(f"weight_hh_l0{suffix}")
    biases = own.get_parameter(f"bias_ih_l0{suffix}"), own.get_parameter(f"bias_hh_l0{suffix}")
    if kind == "LSTM":
        return [inward.T, recurrent.T, biases[0] + biases[1]]
    return [ordered(inward).T, ordered(recurrent).T, torch.stack([ordered(value) for value in biases])]


def _reshape(writing: _Writing, part: _Part) -> None:
    layers = keras().layers
    if len(part.shape) == 3:
        writing.add(layers.Permute((3, 1, 2)))
    writing.add(layers.Reshape(tuple(part.value)))
    if len(part.value) == 3:
        writing.add(layers.Permute((2, 3, 1)))


def _activate(writing: _Writing, name: str) -> None:
    layers = keras().layers
    writing.add(layers.LeakyReLU(negative_slope=LEAKY) if name == "leaky_relu" else layers.Activation(name))


def _activation(name: str) -> Writer:
    return lambda writing, part: _activate(writing, name)


def _inner(module: nn.Module, kind: type[M]) -> M:
    """Find the module of a kind: a layer with an activation is a sequence."""
    return next(part for part in module.modules() if isinstance(part, kind))


WRITERS: dict[str, Writer] = {
    "flatten": _flatten,
    "dense": _dense,
    "conv2d": _conv2d,
    "max_pool": _pool("MaxPooling2D"),
    "avg_pool": _pool("AveragePooling2D"),
    "global_pool": _global_pool,
    "batch_norm": _batch_norm,
    "layer_norm": _layer_norm,
    "group_norm": _group_norm,
    "dropout": _dropout,
    "embedding": _embedding,
    "gru": _recurrent("GRU"),
    "lstm": _recurrent("LSTM"),
    "reshape": _reshape,
    **{name: _activation(name) for name in ACTIVATIONS},
}


def keras_backbone(path: Path) -> Path:
    """Convert a `.keras` file of a network on images, with values from 0 to 1, and return the cached folder.

    Raises:
        ArtifactError: it cannot be converted, or is not a network on images.
    """

    def convert(folder: Path) -> None:
        network = read_keras(path)
        shape = network.spec.input_shape
        if len(shape) != 3:
            raise ArtifactError(
                "the network does not take images", file=path, found=list(shape), expected="[height, width, channels]"
            )
        write_weights(folder / "model.safetensors", network.state_dict())
        size = {"height": shape[1], "width": shape[2]}
        scaling = {"do_rescale": True, "rescale_factor": 1 / 255, "do_normalize": False}
        write_json(folder / "preprocessor_config.json", {"do_resize": True, "size": size, "resample": 2, **scaling})
        layers = network.spec.backbone["layers"]
        facts = {"num_channels": shape[0], "image_size": list(shape[1:])}
        write_json(folder / "config.json", {"model_type": KIND, "layers": layers, **facts})

    return cached_folder(cache_dir() / "converted" / f"keras-{VERSION}-{known_sha256(path)}", convert)


def read_keras(path: Path) -> SequentialNetwork:
    """Read the network in an untrusted `.keras` file, with its weights; its last dense layer is the head.

    Raises:
        ArtifactError: the file is of another format, is no sequence of layers, or has an unsupported layer.
    """
    model = open_foreign(path)
    reading = _Reading(path, tuple(model.input_shape[1:]))
    for layer in model.layers:
        reading.take(layer)
    shape = reading.first
    spec = SequentialSpec(
        backbone={"layers": reading.layers[:-1]},
        head=reading.layers[-1:],
        input_shape=(shape[2], *shape[:2]) if len(shape) == 3 else tuple(shape),
        outputs=model.output_shape[-1],
    )
    network = assemble(spec, lambda name, make: make())
    blocks = [*network.backbone.children(), *network.head.children()]
    with torch.no_grad():
        for block, weights in zip(blocks, reading.weights, strict=True):
            own = [value for name, value in block.state_dict().items() if not name.endswith("num_batches_tracked")]
            for value, given in zip(own, weights, strict=True):
                value.copy_(torch.from_numpy(np.ascontiguousarray(given)))
    return network.eval()


class _Reading:
    """Collect our layers, with the weights of each, in the order of their state_dict."""

    def __init__(self, path: Path, first: Shape) -> None:
        self.path = path
        self.first = first
        self.layers: list[Layer] = []
        self.weights: list[list[np.ndarray]] = []
        self.padding = 0
        self.channels_first = False
        # After an image was flattened in Keras's order: the position there of each of our values.
        self.order: np.ndarray | None = None

    def add(self, layer: Layer, *weights: np.ndarray) -> None:
        self.layers.append(layer)
        self.weights.append(list(weights))

    def take(self, layer: KerasLayer) -> None:
        """Convert the next layer.

        Raises:
            ArtifactError: it is not supported.
        """
        kind, config = type(layer).__name__, layer.get_config()
        weights = [np.asarray(value) for value in layer.get_weights()]
        if config.get("data_format") == "channels_first":
            raise self.refused(layer, "channels_first", "channels_last")
        if kind == "Dense":
            kernel = weights[0] if self.order is None else weights[0][self.order]
            self.order = None
            self.add(
                self.with_activation({"dense": config["units"], "bias": config["use_bias"]}, layer),
                kernel.T,
                *weights[1:],
            )
        elif kind == "Conv2D":
            self.take_conv2d(layer, config, weights)
        elif kind == "BatchNormalization":
            if not (config["center"] and config["scale"]):
                raise self.refused(layer, "no scale or no center", "both")
            if self.order is not None:
                weights = [value[self.order] for value in weights]
            self.add({"batch_norm": None, "momentum": 1 - config["momentum"], "eps": config["epsilon"]}, *weights)
        elif kind == "LayerNormalization" and len(layer.input.shape) < 4 and self.order is None:
            self.add({"layer_norm": None, "eps": config["epsilon"]}, *weights)
        elif kind == "GroupNormalization":
            self.add({"group_norm": config["groups"], "eps": config["epsilon"]}, *weights)
        elif kind == "Embedding":
            self.add({"embedding": config["output_dim"], "vocabulary": config["input_dim"]}, *weights)
        else:
            self.take_plain(layer, kind, config)

    def take_plain(self, layer: KerasLayer, kind: str, config: Config) -> None:
        """Convert a layer without weights."""
        if kind == "Flatten":
            shape = tuple(layer.input.shape[1:])
            if len(shape) == 3 and not self.channels_first:
                self.order = np.arange(np.prod(shape)).reshape(shape).transpose(2, 0, 1).ravel()
            self.channels_first = False
            self.add("flatten")
        elif kind in ("MaxPooling2D", "AveragePooling2D"):
            sizes = {*config["pool_size"]}, {*config["strides"]}
            if config["padding"] != "valid" or any(len(size) > 1 for size in sizes):
                raise self.refused(layer, config, "square windows and padding: valid")
            name = "max_pool" if kind == "MaxPooling2D" else "avg_pool"
            self.add({name: sizes[0].pop(), "stride": sizes[1].pop()})
        elif kind == "Dropout":
            self.add({"dropout": config["rate"]})
        elif kind == "GlobalAveragePooling2D":
            self.add("global_pool")
        elif kind == "ReLU" and config.get("max_value") is None and not config.get("negative_slope"):
            self.add("relu")
        elif kind == "LeakyReLU" and abs(config["negative_slope"] - LEAKY) < 1e-6:
            self.add("leaky_relu")
        elif kind == "Activation" and config["activation"] in ACTIVATIONS:
            self.add(config["activation"])
        elif kind == "ZeroPadding2D" and config["padding"][0][0] * 4 == sum(map(sum, config["padding"])):
            self.padding = config["padding"][0][0]
        elif kind == "Permute" and tuple(config["dims"]) == (3, 1, 2):
            self.channels_first = True
        elif kind == "Rescaling" and not self.layers and abs(config["scale"] * 255 - 1) < 1e-3 and not config["offset"]:
            pass  # bytes are scaled to 0 to 1, as they are here
        elif (
            kind == "Reshape" and len(layer.input.shape) == 2 and len(config["target_shape"]) < 3 and self.order is None
        ):
            self.add({"reshape": list(config["target_shape"])})
        elif kind in ("InputLayer", "Softmax") or (kind == "Activation" and config["activation"] == "softmax"):
            pass  # every loss here is computed from logits
        else:
            raise self.refused(layer, kind, "one that means the same here")

    def take_conv2d(self, layer: KerasLayer, config: Config, weights: list[np.ndarray]) -> None:
        """Convert a convolution, whose kernels are [height, width, in, out] in Keras."""
        sizes = {*config["kernel_size"]}, {*config["strides"]}, {*config["dilation_rate"]}
        same, size = config["padding"] == "same", next(iter(sizes[0]))
        strange = any(len(size) > 1 for size in sizes) or sizes[2] != {1} or config["groups"] != 1
        if strange or (same and (sizes[1] != {1} or size % 2 == 0 or self.padding)):
            raise self.refused(layer, config, "square kernels, no dilation, one group; same only without strides")
        padding = "same" if same else self.padding
        self.padding = 0
        made: Layer = {"conv2d": config["filters"], "kernel": size, "stride": sizes[1].pop(), "padding": padding}
        made["bias"] = config["use_bias"]
        self.add(self.with_activation(made, layer), weights[0].transpose(3, 2, 0, 1), *weights[1:])

    def with_activation(self, made: Config, layer: KerasLayer) -> Layer:
        """Add the layer's activation; softmax is skipped, as every loss here is computed from logits."""
        name = layer.get_config()["activation"]
        if name in ("linear", "softmax"):
            return made
        if name not in ACTIVATIONS or name == "leaky_relu":  # its slope differs
            raise self.refused(layer, name, ", ".join(ACTIVATIONS))
        return {**made, "activation": name}

    def refused(self, layer: KerasLayer, found: object, expected: str) -> ArtifactError:
        return ArtifactError(
            f"the layer {layer.name} cannot be converted", file=self.path, found=found, expected=expected
        )
