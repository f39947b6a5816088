"""Open an untrusted `.keras` file as a Keras model, without running any code that the file names.

The file is a zip with a configuration and an HDF5 file of weights. Keras builds objects of whatever the configuration names, and
HDF5 can point to other files. Therefore both are read here first, within limits. Keras gets only known layers with plain values,
and arrays that are stored in the file itself.
"""

from __future__ import annotations

import json
import os
import tempfile
import zipfile
import zlib
from math import prod
from pathlib import Path
from typing import Any

from tunewright.errors import ArtifactError
from tunewright.files import cache_dir
from tunewright.limits import KERAS_CONFIG, KERAS_WEIGHTS, LAYER_OUTPUTS, Limit

# The supported layers, by their names in a file.
LAYERS = [
    *("InputLayer", "Rescaling", "Dense", "Conv2D", "Flatten", "MaxPooling2D", "AveragePooling2D"),
    *("GlobalAveragePooling2D", "BatchNormalization", "LayerNormalization", "GroupNormalization", "Dropout", "ReLU"),
    *("LeakyReLU", "Activation", "Softmax", "Permute", "ZeroPadding2D", "Embedding", "Reshape"),
]
# The objects that a layer's configuration may contain: they matter for training, not for what it computes.
INNER = {
    "keras": {"DTypePolicy"},
    "keras.initializers": {
        *("Constant", "GlorotNormal", "GlorotUniform", "HeNormal", "HeUniform", "Identity", "LecunNormal"),
        *("LecunUniform", "Ones", "Orthogonal", "RandomNormal", "RandomUniform", "TruncatedNormal"),
        *("VarianceScaling", "Zeros"),
    },
    "keras.regularizers": {"L1", "L2", "L1L2", "OrthogonalRegularizer"},
    "keras.constraints": {"MaxNorm", "MinMaxNorm", "NonNeg", "UnitNorm"},
}
# The keys of these objects; Keras's defaults replace them.
INNER_KEYS = ("dtype", "_initializer", "_regularizer", "_constraint")
CONFIG, WEIGHTS = "config.json", "model.weights.h5"
DAMAGED = (
    AttributeError,
    OSError,
    KeyError,
    ValueError,
    TypeError,
    RecursionError,
    EOFError,
    RuntimeError,
    zipfile.BadZipFile,
    zlib.error,
)


# Keras is an optional package without types.
KerasLibrary = Any
KerasModel = Any
KerasLayer = Any
Config = dict[str, Any]
"""A layer's configuration, as in a JSON file."""


def keras() -> KerasLibrary:
    """Import the library with torch as its backend."""
    os.environ.setdefault("KERAS_BACKEND", "torch")
    import keras

    return keras


def open_foreign(path: Path) -> KerasModel:
    """Open an untrusted `.keras` file as a Keras model with its weights.

    Raises:
        ArtifactError: the file is of another format, is no sequence of known layers, names code or other files, or is too large.
    """
    config = _plain_config(path)
    (cache_dir() / "converted").mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=cache_dir() / "converted") as folder:
        weights = Path(folder) / WEIGHTS
        _unpack(path, weights)
        held = _count_weights(weights, path)
        try:
            library = keras()
            with library.device("meta"):  # only sizes, before memory is allocated
                _require_size(library.saving.deserialize_keras_object(config, safe_mode=True), held, path)
            model = library.saving.deserialize_keras_object(config, safe_mode=True)
            model.load_weights(weights)
        except ArtifactError:
            raise
        except Exception as error:
            said = f"{error}".strip().splitlines() or [type(error).__name__]
            raise ArtifactError(f"Keras cannot open the file: {said[0]}", file=path, expected="a .keras file") from None
    return model


def _plain_config(path: Path) -> Config:
    """Read the network's configuration: known layers with plain values only."""
    try:
        config = json.loads(_read(path, CONFIG, KERAS_CONFIG))
        layers = config["config"]["layers"]
        named = [(layer["module"], layer["class_name"], layer.get("registered_name")) for layer in layers]
        chain = (config["module"], config["class_name"], config.get("registered_name"))
        objects = _objects([list(layer["config"].values()) for layer in layers])
        plain = [_plain_layer(layer) for layer in layers]
    except DAMAGED as error:
        raise ArtifactError(
            f"the file is not a Keras network: {error}", file=path, expected="a .keras file with a chain of layers"
        ) from None
    if chain != ("keras", "Sequential", None):
        raise ArtifactError(
            "the network is not a chain of layers", file=path, found=chain[1], expected="keras.Sequential"
        )
    for number, (module, kind, registered) in enumerate(named, start=1):
        if module != "keras.layers" or kind not in LAYERS or registered is not None:
            raise ArtifactError(
                f"layer {number} is not supported",
                file=path,
                found=f"{module}.{kind}",
                expected=", ".join(LAYERS),
                fix="nothing of the file was run",
            )
    for value in objects:
        if not _is_known(value):
            raise ArtifactError(
                "the file names code",
                file=path,
                found=f"{value.get('module')}.{value.get('class_name')}",
                expected="plain values, and initializers, regularizers and constraints of Keras",
                fix="nothing of the file was run",
            )
    shape = config["config"].get("build_input_shape")
    network = {"name": "network", "layers": plain, **({"build_input_shape": shape} if _is_plain(shape) else {})}
    return {"module": "keras", "class_name": "Sequential", "registered_name": None, "config": network}


def _objects(value: object) -> list[Config]:
    """Return everything in a value that is not plain; each should be an object of Keras with its own values in `config`."""
    if isinstance(value, list):
        return [found for entry in value for found in _objects(entry)]
    if not isinstance(value, dict):
        return []
    own = value.get("config")
    others = [entry for key, entry in value.items() if key != "config"]
    return [value, *_objects(others), *_objects(list(own.values()) if isinstance(own, dict) else own)]


def _is_known(value: Config) -> bool:
    """Return whether an object is one of Keras's supported objects, by its exact names, with an ordinary configuration."""
    module, kind = value.get("module"), value.get("class_name")
    return (
        isinstance(module, str)
        and isinstance(kind, str)
        and kind in INNER.get(module, ())
        and value.get("registered_name") is None
        and isinstance(value.get("config"), dict)
    )


def _is_plain(value: object) -> bool:
    if isinstance(value, list):
        return all(_is_plain(entry) for entry in value)
    return value is None or isinstance(value, str | int | float)


def _plain_layer(layer: Config) -> Config:
    """Return a layer with its plain values only."""
    values = {
        key: value
        for key, value in layer["config"].items()
        if _is_plain(value) and not any(key.endswith(ending) for ending in INNER_KEYS)
    }
    return {"module": layer["module"], "class_name": layer["class_name"], "registered_name": None, "config": values}


def _read(path: Path, name: str, limit: Limit) -> bytes:
    """Read a file of the zip up to a limit, whatever size the archive declares."""
    with zipfile.ZipFile(path) as archive, archive.open(name) as file:
        content = file.read(limit.value + 1)
    limit.require(len(content), f"{name} is too long", error=ArtifactError, file=path)
    return content


def _unpack(path: Path, target: Path) -> None:
    """Extract the file of the weights, up to a limit."""
    try:
        with zipfile.ZipFile(path) as archive, archive.open(WEIGHTS) as file, target.open("wb") as copy:
            while piece := file.read(2**20):
                copy.write(piece)
                KERAS_WEIGHTS.require(copy.tell(), "the weights are too large", error=ArtifactError, file=path)
    except DAMAGED as error:
        raise ArtifactError(f"the weights cannot be read: {error}", file=path, expected="a .keras file") from None


def _count_weights(weights: Path, path: Path) -> int:
    """Count the weights in the arrays, after checking that all arrays are stored in the file itself."""
    import h5py

    count, size = 0, 0
    links: list[tuple[str, object]] = []
    try:
        with h5py.File(weights, "r") as file:
            file.visititems_links(lambda name, link: links.append((name, link)))
            for name, link in links:
                found = file.get(name) if isinstance(link, h5py.HardLink) else link
                if isinstance(found, h5py.Group):
                    continue
                if (
                    not isinstance(found, h5py.Dataset)
                    or found.external
                    or found.is_virtual
                    or found.dtype.kind not in "fiu"
                ):
                    raise ArtifactError(
                        "the weights point to another file, or are not numeric",
                        file=path,
                        place=name,
                        expected="arrays of numbers in the file itself",
                        fix="nothing of it was read",
                    )
                count, size = count + prod(found.shape), size + prod(found.shape) * max(4, found.dtype.itemsize)
                KERAS_WEIGHTS.require(size, "the weights are too large", error=ArtifactError, file=path)
    except DAMAGED as error:
        raise ArtifactError(f"the weights cannot be read: {error}", file=path, expected="a .keras file") from None
    return count


def _require_size(model: KerasModel, held: int, path: Path) -> None:
    """Check that a model has no more weights than the file holds, and no layer with too large an output."""
    if (wanted := model.count_params()) > held:
        raise ArtifactError(
            "the configuration asks for more weights than the file holds", file=path, found=wanted, expected=f"{held:,}"
        )
    for shape in (model.input_shape, *(layer.output.shape for layer in model.layers)):
        LAYER_OUTPUTS.require(prod(size or 1 for size in shape), "a layer is too large", error=ArtifactError, file=path)
