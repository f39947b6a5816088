"""Build the layers of a recipe (`flatten`, `{dense: 128, activation: relu}` …) as modules with inferred shapes.

A layer is a name, or a mapping whose first key is the name, with its main value, and whose other keys are options.
Each entry of LAYERS is a function `(shape, value, *, options) -> (module, output shape)`; shapes are without the batch:
(channels, height, width) for images, (features,) for rows, (time,) for token ids, (time, features) for sequences.
"""

from __future__ import annotations

import difflib
import inspect
import math
from collections.abc import Callable

import torch
from jaxtyping import Float, Int, Real
from torch import Tensor, nn

from tunewright.errors import RecipeError
from tunewright.models.core.scattering import Scattering
from tunewright.recipe.schema import Layer

Shape = tuple[int, ...]
Value = object
"""A value as the recipe has it, not checked yet."""
# The most directions of a scattering layer, whose wavelets are computed when the network is built.
MOST_DIRECTIONS = 64

ACTIVATIONS: dict[str, Callable[[], nn.Module]] = {
    "relu": nn.ReLU,
    "gelu": nn.GELU,
    "silu": nn.SiLU,
    "tanh": nn.Tanh,
    "sigmoid": nn.Sigmoid,
    "leaky_relu": nn.LeakyReLU,
}


class LayerMismatch(Exception):
    """Report that a layer does not fit its input; turned into a RecipeError that names its position."""

    def __init__(self, problem: str, expected: str | None = None, fix: str | None = None) -> None:
        super().__init__(problem)
        self.expected = expected
        self.fix = fix


class LastOutput(nn.Module):
    """Return a recurrent layer's output at every time step, or at the last one."""

    def __init__(self, recurrent: nn.GRU | nn.LSTM, *, sequences: bool) -> None:
        super().__init__()
        self.recurrent = recurrent
        self.sequences = sequences

    def forward(
        self, inputs: Float[Tensor, "batch time features"]
    ) -> Float[Tensor, "batch time units"] | Float[Tensor, "batch units"]:
        outputs, _ = self.recurrent(inputs)
        return outputs if self.sequences else outputs[:, -1]


class GlobalPool(nn.Module):
    """Average over all positions of an image."""

    def forward(self, inputs: Float[Tensor, "batch channels height width"]) -> Float[Tensor, "batch channels"]:
        return inputs.mean((2, 3))


def flatten(shape: Shape) -> tuple[nn.Module, Shape]:
    """Put all values of an example in one row."""
    return nn.Flatten(), (math.prod(shape),)


def dense(shape: Shape, units: Value, *, activation: str | None = None, bias: bool = True) -> tuple[nn.Module, Shape]:
    """Compute y = W x + b on the last axis."""
    units = _whole(units, "units")
    if len(shape) == 3:
        raise LayerMismatch(f"dense cannot read an image {list(shape)}", "a row of values", "put `flatten` before it")
    return _activated(nn.Linear(shape[-1], units, bias=bias), activation), (*shape[:-1], units)


def conv2d(
    shape: Shape,
    filters: Value,
    *,
    kernel: Value = 3,
    stride: Value = 1,
    padding: Value = "same",
    activation: str | None = None,
    bias: bool = True,
) -> tuple[nn.Module, Shape]:
    """Cross-correlate with `filters` kernels; `same` padding gives ⌈size / stride⌉ outputs."""
    channels, height, width = _image(shape, "conv2d")
    filters, kernel, stride = _whole(filters, "filters"), _whole(kernel, "kernel"), _whole(stride, "stride")
    if padding == "same":
        if kernel % 2 == 0:
            raise LayerMismatch("padding `same` needs an odd kernel", "kernel: 3, 5, 7 …", "or padding: valid")
        pad = kernel // 2
    elif padding == "valid":
        pad = 0
    elif isinstance(padding, int) and not isinstance(padding, bool) and padding >= 0:
        pad = padding
    else:
        raise LayerMismatch(f"padding is {padding!r}", "same, valid or a number of pixels")
    after = tuple((size + 2 * pad - kernel) // stride + 1 for size in (height, width))
    if min(after) < 1:
        raise LayerMismatch(
            f"a kernel of {kernel} is larger than the image {list(shape)}",
            fix="a smaller kernel, or less pooling before it",
        )
    module = nn.Conv2d(channels, filters, kernel, stride, pad, bias=bias)
    return _activated(module, activation), (filters, *after)


def max_pool(shape: Shape, size: Value = 2, *, stride: Value = None) -> tuple[nn.Module, Shape]:
    """Take the maximum of each size × size window."""
    (size, stride), after = _pooled(shape, size, stride, "max_pool")
    return nn.MaxPool2d(size, stride), after


def avg_pool(shape: Shape, size: Value = 2, *, stride: Value = None) -> tuple[nn.Module, Shape]:
    """Take the mean of each size × size window."""
    (size, stride), after = _pooled(shape, size, stride, "avg_pool")
    return nn.AvgPool2d(size, stride), after


def global_pool(shape: Shape) -> tuple[nn.Module, Shape]:
    """Take the mean of each channel over the whole image."""
    return GlobalPool(), (_image(shape, "global_pool")[0],)


def batch_norm(shape: Shape, *, momentum: float = 0.1, eps: float = 1e-5) -> tuple[nn.Module, Shape]:
    """Normalise each channel over the batch (Ioffe and Szegedy 2015)."""
    if len(shape) not in (1, 3):
        raise LayerMismatch(
            f"batch_norm cannot read {list(shape)}", "an image or a row", "use layer_norm for sequences"
        )
    kind = nn.BatchNorm2d if len(shape) == 3 else nn.BatchNorm1d
    return kind(shape[0], eps=eps, momentum=momentum), shape


def layer_norm(shape: Shape, *, eps: float = 1e-5) -> tuple[nn.Module, Shape]:
    """Normalise each example over the last axis, an image over all axes (Ba, Kiros and Hinton 2016)."""
    return nn.LayerNorm(list(shape if len(shape) == 3 else shape[-1:]), eps=eps), shape


def group_norm(shape: Shape, groups: Value = 8, *, eps: float = 1e-5) -> tuple[nn.Module, Shape]:
    """Normalise groups of channels of each example (Wu and He 2018); `auto`: the largest divisor of the channels up to 8."""
    if len(shape) not in (1, 3):
        raise LayerMismatch(f"group_norm cannot read {list(shape)}", "an image or a row")
    channels = shape[0]
    groups = even_groups(channels) if groups == "auto" else _whole(groups, "groups")
    if channels % groups:
        raise LayerMismatch(f"{channels} channels cannot be divided into {groups} groups", f"a divisor of {channels}")
    return nn.GroupNorm(groups, channels, eps=eps), shape


def scattering(shape: Shape, scales: Value = 2, *, directions: Value = 8) -> tuple[nn.Module, Shape]:
    """Compute image features with fixed wavelets (Bruna and Mallat 2013); the layer has no trainable weights."""
    channels, height, width = _image(shape, "scattering")
    scales, directions = _whole(scales, "scales"), _whole(directions, "directions")
    if directions > MOST_DIRECTIONS:
        raise LayerMismatch(f"{directions} directions are too many", f"at most {MOST_DIRECTIONS}")
    if min(height, width) < 2 ** (scales + 1):
        raise LayerMismatch(
            f"{scales} scales are too many for the image {list(shape)}", f"at least {2 ** (scales + 1)} pixels"
        )
    module = Scattering((height, width), scales, directions)
    count = 1 + scales * directions + directions**2 * scales * (scales - 1) // 2
    return module, (channels * count, height >> scales, width >> scales)


def even_groups(channels: int) -> int:
    """Return the largest divisor of the channels up to 8."""
    return max(groups for groups in range(1, 9) if channels % groups == 0)


def dropout(shape: Shape, rate: Value) -> tuple[nn.Module, Shape]:
    """Set a random fraction of the values to 0 during training (Srivastava et al. 2014)."""
    if isinstance(rate, bool) or not isinstance(rate, int | float) or not 0 <= rate < 1:
        raise LayerMismatch(f"the rate of dropout is {rate!r}", "a fraction from 0 to below 1")
    return nn.Dropout(rate), shape


def embedding(shape: Shape, size: Value, *, vocabulary: Value) -> tuple[nn.Module, Shape]:
    """Look up a vector for each of `vocabulary` ids: [time] to [time, size]."""
    size, vocabulary = _whole(size, "size"), _whole(vocabulary, "vocabulary")
    if len(shape) != 1:
        raise LayerMismatch(f"embedding reads a row of ids, the layer before gives {list(shape)}", fix="put it first")
    return nn.Sequential(ToIds(), nn.Embedding(vocabulary, size)), (shape[0], size)


class ToIds(nn.Module):
    """Convert ids that arrive as floats to indices."""

    def forward(self, inputs: Real[Tensor, "batch time"]) -> Int[Tensor, "batch time"]:
        return inputs.long()


def gru(shape: Shape, units: Value, *, bidirectional: bool = False, sequences: bool = False) -> tuple[nn.Module, Shape]:
    """Apply a gated recurrent layer (Cho et al. 2014); returns the last step's output, or all with `sequences: true`."""
    return _recurrent(nn.GRU, shape, units, bidirectional, sequences, "gru")


def lstm(
    shape: Shape, units: Value, *, bidirectional: bool = False, sequences: bool = False
) -> tuple[nn.Module, Shape]:
    """Apply a long short-term memory layer (Hochreiter and Schmidhuber 1997); options as for gru."""
    return _recurrent(nn.LSTM, shape, units, bidirectional, sequences, "lstm")


def reshape(shape: Shape, to: Value) -> tuple[nn.Module, Shape]:
    """Arrange the same values in another shape."""
    if (
        not isinstance(to, list)
        or not all(isinstance(n, int) and n > 0 for n in to)
        or math.prod(to) != math.prod(shape)
    ):
        raise LayerMismatch(
            f"{list(shape)} cannot be reshaped to {to!r}", f"a list of {math.prod(shape)} values in all"
        )
    return nn.Unflatten(1, to) if len(shape) == 1 else nn.Sequential(nn.Flatten(), nn.Unflatten(1, to)), tuple(to)


def _activation(name: str) -> Callable[[Shape], tuple[nn.Module, Shape]]:
    def layer(shape: Shape) -> tuple[nn.Module, Shape]:
        return ACTIVATIONS[name](), shape

    return layer


LAYERS: dict[str, Callable[..., tuple[nn.Module, Shape]]] = {
    "flatten": flatten,
    "dense": dense,
    "conv2d": conv2d,
    "max_pool": max_pool,
    "avg_pool": avg_pool,
    "global_pool": global_pool,
    "batch_norm": batch_norm,
    "layer_norm": layer_norm,
    "group_norm": group_norm,
    "scattering": scattering,
    "dropout": dropout,
    "embedding": embedding,
    "gru": gru,
    "lstm": lstm,
    "reshape": reshape,
    **{name: _activation(name) for name in ACTIVATIONS},
}


def split_layer(layer: Layer) -> tuple[str, tuple[object, ...], dict[str, object]]:
    """Split a layer of the recipe into name, main value (none or one) and options."""
    if isinstance(layer, str):
        return layer, (), {}
    if not layer:
        raise LayerMismatch("the layer is empty", "a name, or {name: value, option: value}")
    (name, value), *options = layer.items()
    return name, () if value is None else (value,), dict(options)


def resolve_auto(layers: list[Layer], outputs: int) -> list[Layer]:
    """Replace `{dense: auto}` by the number of outputs that the data needs."""
    return [
        {**layer, "dense": outputs} if isinstance(layer, dict) and layer.get("dense") == "auto" else layer
        for layer in layers
    ]


def build_layer(layer: Layer, shape: Shape, place: str) -> tuple[nn.Module, Shape]:
    """Build one layer's module, freshly initialised, and return it with its output shape.

    Args:
        place: the layer's position in the recipe, for the error: "model.layers, layer 3".

    Raises:
        RecipeError: an unknown layer or option, a wrong value, or a shape that does not fit.
    """
    try:
        name, value, options = split_layer(layer)
        _check_signature(name, value, options)
        return LAYERS[name](shape, *value, **options)
    except LayerMismatch as error:
        raise RecipeError(str(error), place=place, found=layer, expected=error.expected, fix=error.fix) from None
    except (TypeError, ValueError, RuntimeError) as error:
        raise RecipeError(f"the layer does not accept its options: {error}", place=place, found=layer) from error


def _check_signature(name: str, value: tuple[object, ...], options: dict[str, object]) -> None:
    """Check that a layer exists and takes this value and these options.

    Raises:
        LayerMismatch: it does not.
    """
    if name in ("softmax", "log_softmax"):
        raise LayerMismatch(f"{name} is not a layer here: every loss is computed from logits", fix="leave it out")
    if name not in LAYERS:
        raise _unknown("layer", name, list(LAYERS))
    parameters = inspect.signature(LAYERS[name]).parameters.values()
    known = [parameter.name for parameter in parameters if parameter.kind is parameter.KEYWORD_ONLY]
    main = [p for p in parameters if p.kind is p.POSITIONAL_OR_KEYWORD][1:]
    if value and not main:
        raise LayerMismatch(f"{name} takes no value", f"just `{name}`")
    if not value and main and main[0].default is inspect.Parameter.empty:
        raise LayerMismatch(f"{name} needs its {main[0].name}", f"{{{name}: {main[0].name.upper()}}}")
    for option in options:
        if option not in known:
            raise _unknown(f"option of {name}", option, known)
    missing = [
        p.name for p in parameters if p.kind is p.KEYWORD_ONLY and p.default is p.empty and p.name not in options
    ]
    if missing:
        raise LayerMismatch(f"{name} needs the option {missing[0]}", f"{{{name}: …, {missing[0]}: …}}")


def initialise(module: nn.Module) -> None:
    """Initialise the weights in place, from the global random state.

    Dense and recurrent layers get Glorot and Bengio's (2010) uniform weights and zero biases, as in Keras and in
    textbooks; convolutions get He et al.'s (2015) normal weights, derived for ReLU. Norms and embeddings keep PyTorch's.
    """
    for part in module.modules():
        if isinstance(part, nn.Linear):
            nn.init.xavier_uniform_(part.weight)
        elif isinstance(part, nn.Conv2d):
            nn.init.kaiming_normal_(part.weight, mode="fan_out", nonlinearity="relu")
        elif isinstance(part, nn.GRU | nn.LSTM):
            for name, value in part.named_parameters():
                (nn.init.zeros_ if "bias" in name else nn.init.xavier_uniform_)(value)
        if isinstance(part, nn.Linear | nn.Conv2d) and part.bias is not None:
            nn.init.zeros_(part.bias)


def _activated(module: nn.Module, activation: str | None) -> nn.Module:
    if activation is None:
        return module
    if activation not in ACTIVATIONS:
        raise _unknown("activation", activation, list(ACTIVATIONS))
    return nn.Sequential(module, ACTIVATIONS[activation]())


def _recurrent(
    kind: type[nn.GRU] | type[nn.LSTM], shape: Shape, units: Value, bidirectional: bool, sequences: bool, name: str
) -> tuple[nn.Module, Shape]:
    units = _whole(units, "units")
    if len(shape) != 2:
        raise LayerMismatch(
            f"{name} reads a sequence [steps, features], the layer before gives {list(shape)}",
            fix="put `embedding` or `reshape` before it",
        )
    width = units * (2 if bidirectional else 1)
    module = LastOutput(kind(shape[1], units, batch_first=True, bidirectional=bidirectional), sequences=sequences)
    return module, (shape[0], width) if sequences else (width,)


def _pooled(shape: Shape, size: Value, stride: Value, name: str) -> tuple[tuple[int, int], Shape]:
    """Return the checked size and stride of a pooling layer, and its output shape."""
    channels, height, width = _image(shape, name)
    size = _whole(size, "size")
    stride = size if stride is None else _whole(stride, "stride")
    after = tuple((side - size) // stride + 1 for side in (height, width))
    if min(after) < 1:
        raise LayerMismatch(
            f"nothing is left of an image {list(shape)} after {name} of {size}",
            fix="remove this layer, or resize the images: data.resize",
        )
    return (size, stride), (channels, *after)


def _image(shape: Shape, name: str) -> tuple[int, int, int]:
    if len(shape) != 3:
        raise LayerMismatch(
            f"{name} reads an image [channels, height, width], the layer before gives {list(shape)}",
            fix="put it before `flatten`",
        )
    return shape[0], shape[1], shape[2]


def _whole(value: Value, name: str) -> int:
    """Return a whole number above 0.

    Raises:
        LayerMismatch: it is none, or too large.
    """
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        hint = "; `auto` is for the last dense layer" if value == "auto" else ""
        raise LayerMismatch(f"{name} is {value!r}", f"a whole number above 0{hint}")
    if value > 1_000_000:
        raise LayerMismatch(f"{name} is {value:,}", "at most 1,000,000")
    return value


def _unknown(what: str, found: object, known: list[str]) -> LayerMismatch:
    near = difflib.get_close_matches(str(found), known, n=1)
    return LayerMismatch(
        f"there is no {what} {found!r}", ", ".join(known) or "no options", f"did you mean {near[0]}?" if near else None
    )


def seeded(seed: int, build: Callable[[], nn.Module]) -> nn.Module:
    """Build a module whose initial weights depend on the seed alone; the global random state does not change."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        module = build()
        initialise(module)
    return module


def is_linear(module: nn.Module) -> bool:
    """Return whether a module is a linear layer: torch's, or GPT-2's, which the library calls Conv1D."""
    return isinstance(module, nn.Linear) or type(module).__name__ == "Conv1D"
