"""Somebody else's `.keras` file: it names no code and no other file, and is read within bounds."""

from __future__ import annotations

import base64
import io
import json
import pickle
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import torch

from tunewright.errors import ArtifactError
from tunewright.models.exchange.keras_file import read_keras
from tunewright.models.exchange.keras_untrusted import CONFIG, LAYERS, WEIGHTS, keras, open_foreign

pytestmark = pytest.mark.filterwarnings("ignore")


class Payload(torch.nn.Module):
    """What leaves a trace when it is unpickled."""

    def __init__(self, trace: Path) -> None:
        super().__init__()
        self.trace = trace

    def __reduce__(self) -> Any:
        return (Path.touch, (self.trace,))


@pytest.fixture
def theirs(tmp_path: Path) -> Path:
    layers = keras().layers
    model = keras().Sequential(
        [
            layers.Input((6, 6, 1)),
            layers.Conv2D(2, 3, activation="relu", kernel_regularizer="l2", kernel_initializer="he_normal"),
            layers.BatchNormalization(beta_constraint=keras().constraints.MaxNorm(2)),
            layers.Flatten(),
            layers.Dense(3, activation="softmax"),
        ]
    )
    model.save(tmp_path / "theirs.keras")
    return tmp_path / "theirs.keras"


def rewritten(path: Path, name: str, content: bytes) -> Path:
    """The file with other content for one of its parts."""
    with zipfile.ZipFile(path) as before:
        parts = {entry: before.read(entry) for entry in before.namelist()}
    target = path.with_name("altered.keras")
    with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as after:
        for entry, old in parts.items():
            after.writestr(entry, content if entry == name else old)
    return target


def configured(path: Path, change: Callable[[dict[str, Any]], object]) -> Path:
    with zipfile.ZipFile(path) as file:
        config = json.loads(file.read(CONFIG))
    change(config)
    return rewritten(path, CONFIG, json.dumps(config).encode())


def weighted(path: Path, change: Callable[[h5py.File], object]) -> Path:
    with zipfile.ZipFile(path) as file:
        held = io.BytesIO(file.read(WEIGHTS))
    with h5py.File(held, "r+") as file:
        change(file)
    return rewritten(path, WEIGHTS, held.getvalue())


def test_every_known_layer_is_opened_with_its_weights(tmp_path: Path) -> None:
    layers = keras().layers
    chain = [
        *(layers.Input((8, 8, 1)), layers.Rescaling(1 / 255), layers.ZeroPadding2D(1), layers.Conv2D(4, 3)),
        *(layers.ReLU(), layers.MaxPooling2D(), layers.LayerNormalization(), layers.GroupNormalization(2)),
        *(layers.BatchNormalization(), layers.AveragePooling2D(2), layers.LeakyReLU(0.01), layers.Permute((3, 1, 2))),
        *(layers.Flatten(), layers.Reshape((4, 4)), layers.Flatten(), layers.Dropout(0.1), layers.Dense(5)),
        *(layers.Activation("tanh"), layers.Softmax()),
    ]
    ids = [layers.Input((7,)), layers.Embedding(11, 3), layers.Permute((2, 1))]
    pooled = [layers.Input((4, 4, 2)), layers.GlobalAveragePooling2D(), layers.Dense(2)]
    seen = {"InputLayer"}
    for number, made in enumerate((chain, ids, pooled)):
        model = keras().Sequential(made)
        model.save(tmp_path / f"{number}.keras")
        found = open_foreign(tmp_path / f"{number}.keras")
        assert [type(layer).__name__ for layer in found.layers] == [type(layer).__name__ for layer in model.layers]
        for ours, own in zip(found.get_weights(), model.get_weights(), strict=True):
            assert np.array_equal(ours, own)
        seen |= {type(layer).__name__ for layer in model.layers}
    assert seen == set(LAYERS)


PLACES = [
    *("activation", "kernel_initializer", "bias_regularizer", "kernel_constraint", "activity_regularizer", "dtype"),
    *("units", "name", "anything"),
]


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize(
    "kind", ["wrapper", "nested", "listed", "registered", "lambda", "function", "tensor", "unnamed"]
)
def test_nothing_but_plain_values_and_known_objects_is_named(theirs: Path, place: str, kind: str) -> None:
    trace = theirs.with_name("it-ran")
    content = base64.b64encode(pickle.dumps(Payload(trace))).decode("ascii")
    module = {"class_name": "__bytes__", "config": {"value": content}}
    wrapper = {
        "module": "keras.layers",
        "class_name": "TorchModuleWrapper",
        "config": {"name": "x", "module": module},
        "registered_name": None,
    }
    zeros = {"module": "keras.initializers", "class_name": "Zeros", "config": {}, "registered_name": None}
    named: dict[str, Any] = {
        "wrapper": wrapper,
        "nested": {**zeros, "config": {"value": [wrapper]}},
        "listed": [1, [wrapper]],
        "registered": {**zeros, "registered_name": "evil>Zeros"},
        "lambda": {"class_name": "__lambda__", "config": {"value": content}},
        "function": {"module": "os", "class_name": "function", "config": "system", "registered_name": "system"},
        "tensor": {"class_name": "__tensor__", "config": {"value": [1], "dtype": "float32"}},
        "unnamed": {"a": 1},
    }
    path = configured(theirs, lambda config: config["config"]["layers"][-1]["config"].update({place: named[kind]}))
    with pytest.raises(ArtifactError, match="names code"):
        read_keras(path)
    assert not trace.exists()


def test_a_layer_that_is_registered_by_another_name_is_refused(theirs: Path) -> None:
    for changes in ({"registered_name": "evil>Dense"}, {"module": "evil"}, {"class_name": "TorchModuleWrapper"}):
        with pytest.raises(ArtifactError, match="layer 5 is not supported"):
            read_keras(
                configured(theirs, lambda config, changes=changes: config["config"]["layers"][-1].update(changes))
            )
    with pytest.raises(ArtifactError, match="not a chain of layers"):
        read_keras(configured(theirs, lambda config: config.update(registered_name="evil>Sequential")))


def test_how_it_was_trained_is_not_read(theirs: Path) -> None:
    evil = {"module": "os", "class_name": "system", "config": {}, "registered_name": None}
    read_keras(configured(theirs, lambda config: config.update(compile_config=evil, build_config=evil)))
    read_keras(configured(theirs, lambda config: config["config"]["layers"][-1].update(build_config=evil)))


@pytest.mark.parametrize(
    "content",
    [
        b"[" * 100_000,
        b'{"config":' * 5_000,
        b"[]",
        b"{}",
        b"",
        b"\xff",
        b'{"config": {"layers": [1]}}',
        b'{"config": null}',
        b'{"config": {"layers": [{"module": "keras.layers", "class_name": [], "config": {}}]}}',
    ],
)
def test_a_damaged_configuration_is_a_message(theirs: Path, content: bytes) -> None:
    with pytest.raises(ArtifactError):
        read_keras(rewritten(theirs, CONFIG, content))


def test_a_small_file_does_not_become_a_large_one(theirs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = rewritten(theirs, CONFIG, b" " * (5 * 2**20) + b"{}")
    assert path.stat().st_size < 2**20
    with pytest.raises(ArtifactError, match=r"config\.json is too long"):
        read_keras(path)
    monkeypatch.setenv("TUNEWRIGHT_LIMIT_KERAS_WEIGHTS", "100000")
    read_keras(theirs)
    with pytest.raises(ArtifactError, match="weights are too large"):
        read_keras(rewritten(theirs, WEIGHTS, bytes(10**6)))

    def grow(file: h5py.File) -> None:
        file.create_dataset("more", (1000, 1000), "f4", compression="gzip", fillvalue=0)

    with pytest.raises(ArtifactError, match="weights are too large"):
        read_keras(weighted(theirs, grow))


def test_sizes_are_seen_before_memory_is_taken(theirs: Path) -> None:
    def units(config: dict[str, Any]) -> None:
        config["config"]["layers"][-1]["config"]["units"] = 10**11

    def picture(config: dict[str, Any]) -> None:
        layers = config["config"]["layers"]
        layers[0]["config"]["batch_shape"] = [None, 10**6, 10**6, 1]
        del layers[4]

    with pytest.raises(ArtifactError, match="more weights than the file holds"):
        read_keras(configured(theirs, units))
    with pytest.raises(ArtifactError, match="a layer is too large"):
        read_keras(configured(theirs, picture))


def first_array(file: h5py.File) -> str:
    names: list[str] = []
    file.visititems(lambda name, found: names.append(name) if isinstance(found, h5py.Dataset) else None)
    return names[0]


@pytest.mark.parametrize("how", ["external link", "soft link", "external storage", "virtual", "objects"])
def test_weights_that_lie_elsewhere_are_refused(theirs: Path, how: str) -> None:
    with h5py.File(theirs.with_name("secret.h5"), "w") as secret:
        secret["x"] = np.ones(3, np.float32)
    theirs.with_name("secret").write_bytes(bytes(100))

    def change(file: h5py.File) -> None:
        name = first_array(file)
        shape = file[name].shape
        del file[name]
        if how == "external link":
            file[name] = h5py.ExternalLink(str(theirs.with_name("secret.h5")), "/x")
        elif how == "soft link":
            file[name] = h5py.SoftLink("/layers")
        elif how == "external storage":
            file.create_dataset(name, shape, "f4", external=[(str(theirs.with_name("secret")), 0, h5py.h5f.UNLIMITED)])
        elif how == "virtual":
            layout = h5py.VirtualLayout((3,), "f4")
            layout[:] = h5py.VirtualSource(str(theirs.with_name("secret.h5")), "x", (3,))
            file.create_virtual_dataset(name, layout)
        else:
            file.create_dataset(name, shape, h5py.string_dtype())

    with pytest.raises(ArtifactError, match="point to another file"):
        read_keras(weighted(theirs, change))


def test_weights_in_a_circle_or_damaged_are_a_message(theirs: Path) -> None:
    def circle(file: h5py.File) -> None:
        file["layers/round"] = file["layers"]

    read_keras(weighted(theirs, circle))
    with zipfile.ZipFile(theirs) as file:
        weights = file.read(WEIGHTS)
    for content in (b"", weights[:1000], weights[: len(weights) // 2], b"\x89HDF\r\n\x1a\n" + bytes(100)):
        with pytest.raises(ArtifactError):
            read_keras(rewritten(theirs, WEIGHTS, content))
