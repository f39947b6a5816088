"""Networks of layers as `.keras` files and back: equal outputs, a fine-tune from somebody's file, and files that are refused."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tunewright.commands.export import export
from tunewright.console import silent
from tunewright.errors import ArtifactError
from tunewright.models.build import build_network, describe_model
from tunewright.models.core.network import SequentialNetwork
from tunewright.models.exchange.keras_file import applied, keras, keras_backbone, read_keras, write_keras
from tunewright.recipe.schema import Model
from tunewright.run_recipe import run

PICTURE = [
    {"conv2d": 6, "stride": 2, "activation": "relu"},
    "batch_norm",
    {"conv2d": 4, "padding": 2, "kernel": 4},
    "gelu",
]
NETWORKS: dict[str, tuple[tuple[int, ...], list[Any]]] = {
    "dense": (
        (12,),
        [{"dense": 7, "activation": "tanh"}, "batch_norm", "silu", {"dropout": 0.3}, {"layer_norm": None}],
    ),
    "flat picture": ((3, 5, 4), ["flatten", {"dense": 9, "bias": False}, "leaky_relu"]),
    "convolutions": ((2, 11, 9), [*PICTURE, "layer_norm", {"group_norm": 2}, "max_pool", "flatten"]),
    "pooled": ((1, 8, 8), [{"conv2d": 6}, {"avg_pool": 3, "stride": 2}, "sigmoid", "global_pool"]),
    "recurrent": ((24,), [{"reshape": [6, 4]}, {"gru": 5, "bidirectional": True, "sequences": True}, {"lstm": 3}]),
    "both ways": ((24,), [{"reshape": [6, 4]}, {"lstm": 5, "bidirectional": True}, {"dense": 4}]),
    "ids": ((7,), [{"embedding": 5, "vocabulary": 11}, {"gru": 4}]),
    "reshaped picture": ((2, 4, 4), [{"reshape": [4, 4, 2]}, {"conv2d": 3}, {"reshape": [8, 3]}, {"gru": 2}]),
}


def network_of(shape: tuple[int, ...], layers: list[Any], outputs: int = 3) -> SequentialNetwork:
    described = describe_model(Model(layers=[*layers, {"dense": "auto"}]), input_shape=shape, outputs=outputs)
    network = build_network(described, seed=1)
    with torch.no_grad():
        for value in network.state_dict().values():  # norms and biases too are no longer 0 and 1
            if value.dtype.is_floating_point:
                value.add_(torch.rand_like(value) * 0.3)
    return network.eval()


def inputs_of(shape: tuple[int, ...], ids: bool) -> torch.Tensor:
    draw = torch.Generator().manual_seed(0)
    return torch.randint(0, 11, (4, *shape), generator=draw).float() if ids else torch.rand(4, *shape, generator=draw)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", NETWORKS)
def test_a_network_written_for_keras_computes_the_same(name: str, tmp_path: Path) -> None:
    shape, layers = NETWORKS[name]
    network, inputs = network_of(shape, layers), inputs_of(shape, name == "ids")
    model = write_keras(network, tmp_path / "m.keras")
    with torch.no_grad():
        torch.testing.assert_close(applied(model, inputs), network(inputs), rtol=1e-5, atol=1e-5)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", ["dense", "flat picture", "pooled"])
def test_what_was_written_is_read_again(name: str, tmp_path: Path) -> None:
    shape, layers = NETWORKS[name]
    network, inputs = network_of(shape, layers), inputs_of(shape, False)
    write_keras(network, tmp_path / "m.keras")
    again = read_keras(tmp_path / "m.keras")
    with torch.no_grad():
        torch.testing.assert_close(again(inputs), network(inputs), rtol=1e-6, atol=1e-6)


def foreign(path: Path) -> Any:
    """A network as the text-books of Keras have it, trained a little."""
    layers = keras().layers
    model = keras().Sequential(
        [
            layers.Input((8, 8, 1)),
            layers.Rescaling(1.0 / 255),
            layers.Conv2D(6, 3, activation="relu"),
            layers.BatchNormalization(),
            layers.ZeroPadding2D(1),
            layers.Conv2D(5, 3, strides=2, use_bias=False),
            layers.MaxPooling2D(),
            layers.Flatten(),
            layers.BatchNormalization(),
            layers.Dropout(0.2),
            layers.Dense(16, activation="relu"),
            layers.Dense(10, activation="softmax"),
        ]
    )
    model.compile(optimizer="adam", loss="sparse_categorical_crossentropy")
    draw = np.random.default_rng(0)
    model.fit(draw.uniform(0, 255, (64, 8, 8, 1)), draw.integers(0, 10, 64), epochs=2, verbose=0)
    model.save(path)
    return model


@pytest.mark.filterwarnings("ignore")
def test_somebody_s_network_is_read_and_fine_tuned(tmp_path: Path) -> None:
    model = foreign(tmp_path / "theirs.keras")
    pictures = np.random.default_rng(1).uniform(0, 255, (5, 8, 8, 1)).astype(np.float32)
    ours = read_keras(tmp_path / "theirs.keras")
    with torch.no_grad():
        found = ours(torch.from_numpy(pictures / 255).permute(0, 3, 1, 2)).softmax(1)
    torch.testing.assert_close(found, torch.from_numpy(np.array(model(pictures).detach())), rtol=1e-4, atol=1e-5)

    recipe = {
        "name": "tuned",
        "task": "image-classification",
        "data": {"source": "digits", "limit": 400},
        "model": {"backbone": "theirs.keras"},
        "tune": {"freeze": "backbone"},
        "train": {"epochs": 1},
        "eval": {"resamples": 100},
        "stages": ["finetune"],
    }
    result = run(recipe, base=tmp_path, runs=tmp_path, console=silent())
    from tunewright.models.saved_model import load_network

    saved = load_network(result.folder / "finetune" / "model").network.state_dict()
    for name, value in ours.backbone.state_dict(prefix="backbone.").items():
        torch.testing.assert_close(saved[name], value, rtol=0, atol=0)
    back = export(result.folder / "finetune" / "model", "keras", console=silent())
    assert back.largest_difference < 1e-4 and back.same_answer == 1


@pytest.mark.filterwarnings("ignore")
def test_a_file_that_names_code_is_refused_before_it_is_opened(tmp_path: Path) -> None:
    foreign(tmp_path / "theirs.keras")

    def altered(change: Any) -> Path:
        path = tmp_path / "altered.keras"
        with zipfile.ZipFile(tmp_path / "theirs.keras") as before, zipfile.ZipFile(path, "w") as after:
            for name in before.namelist():
                content = before.read(name)
                if name == "config.json":
                    config = json.loads(content)
                    change(config)
                    content = json.dumps(config).encode()
                after.writestr(name, content)
        return path

    lambdas = {"module": "keras.layers", "class_name": "Lambda", "config": {}}
    with pytest.raises(ArtifactError, match="layer 3 is not supported"):
        read_keras(altered(lambda config: config["config"]["layers"].__setitem__(2, lambdas)))
    foreign_class = {"module": "os", "class_name": "system", "config": {}}
    with pytest.raises(ArtifactError, match="names code"):
        read_keras(
            altered(lambda config: config["config"]["layers"][2]["config"].__setitem__("activation", foreign_class))
        )
    with pytest.raises(ArtifactError, match="not a chain of layers"):
        read_keras(altered(lambda config: config.__setitem__("class_name", "Functional")))
    (tmp_path / "no.keras").write_text("nothing")
    with pytest.raises(ArtifactError, match="not a Keras network"):
        keras_backbone(tmp_path / "no.keras")


@pytest.mark.filterwarnings("ignore")
def test_what_keras_has_no_layer_for_is_said(tmp_path: Path) -> None:
    model = Model.model_validate({"backbone": "resnet20", "head": [{"dense": "auto"}]})
    network = build_network(describe_model(model, input_shape=(3, 16, 16), outputs=2), seed=0)
    with pytest.raises(ArtifactError, match="Keras has no layer"):
        write_keras(network, tmp_path / "m.keras")
