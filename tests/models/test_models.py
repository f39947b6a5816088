"""Networks: layer lists, named models, initial weights, surgery, saving. Every entry of the tables passes one contract."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from tunewright.errors import ArtifactError, RecipeError
from tunewright.models.build import MODELS, build_network, describe_model, shape_after
from tunewright.models.core.layers import LAYERS, build_layer
from tunewright.models.core.network import SequentialNetwork
from tunewright.models.diagram import network_svg
from tunewright.models.layer_table import layer_table
from tunewright.models.recommendation.ctr import CLICK_MODELS
from tunewright.models.replace_head import fit_input, replace_head
from tunewright.models.saved_model import load_network, save_model
from tunewright.recipe.schema import Model

IMAGE, ROW, IDS, SEQUENCE = (3, 8, 8), (12,), (5,), (5, 4)
EXAMPLES: list[tuple[Any, tuple[int, ...]]] = [
    ("flatten", IMAGE),
    ({"dense": 7}, ROW),
    ({"dense": 7, "activation": "gelu"}, SEQUENCE),
    ({"conv2d": 5}, IMAGE),
    ({"conv2d": 5, "kernel": 5, "stride": 2, "activation": "relu"}, IMAGE),
    ({"conv2d": 5, "padding": "valid"}, IMAGE),
    ({"conv2d": 5, "padding": 2, "bias": False}, IMAGE),
    ({"max_pool": 2}, IMAGE),
    ({"max_pool": 3, "stride": 1}, IMAGE),
    ("avg_pool", IMAGE),
    ("global_pool", IMAGE),
    ("batch_norm", IMAGE),
    ("batch_norm", ROW),
    ("layer_norm", IMAGE),
    ("layer_norm", SEQUENCE),
    ({"group_norm": 3}, IMAGE),
    ({"group_norm": "auto"}, ROW),
    ({"scattering": 1, "directions": 4}, IMAGE),
    ({"dropout": 0.5}, ROW),
    ({"embedding": 6, "vocabulary": 11}, IDS),
    ({"gru": 6}, SEQUENCE),
    ({"gru": 6, "sequences": True, "bidirectional": True}, SEQUENCE),
    ({"lstm": 6}, SEQUENCE),
    ({"lstm": 6, "bidirectional": True}, SEQUENCE),
    ({"reshape": [4, 3]}, ROW),
    *((name, ROW) for name in ("relu", "gelu", "silu", "tanh", "sigmoid", "leaky_relu")),
]


def network(
    layers: list[Any], shape: tuple[int, ...], outputs: int = 4, seed: int = 0, **model: Any
) -> SequentialNetwork:
    return build_network(describe_model(Model(layers=layers, **model), input_shape=shape, outputs=outputs), seed=seed)


def test_every_layer_has_an_example() -> None:
    assert {name if isinstance(name, str) else next(iter(name)) for name, _ in EXAMPLES} == set(LAYERS)


@pytest.mark.parametrize(("layer", "shape"), EXAMPLES, ids=lambda value: str(value))
def test_a_layer_makes_the_shape_that_it_says(layer: Any, shape: tuple[int, ...]) -> None:
    module, after = build_layer(layer, shape, "model.layers, layer 1")
    output = module.eval()(torch.rand(2, *shape))
    assert tuple(output.shape) == (2, *after) == (2, *shape_after(module, shape))
    assert torch.isfinite(output).all()


@pytest.mark.parametrize("name", [name for name in MODELS if name not in CLICK_MODELS])
def test_a_named_model_builds_learns_and_describes_itself(name: str) -> None:
    shape = ROW if name == "mlp" else (1, 28, 28)
    described = describe_model(Model(backbone=name), input_shape=shape, outputs=10)
    with torch.device("meta"):
        rows = layer_table(build_network(described, seed=0))
    assert rows[-1].output_shape == (10,)
    assert len({row.block for row in rows}) == len(rows)
    svg = network_svg(rows, title=name, frozen={rows[0].block})
    assert svg.startswith("<svg") and name in svg


@pytest.mark.parametrize(
    ("name", "shape", "outputs", "parameters"),
    [
        # He et al. 2015, table 6, to the digits given there: 0.27, 0.46, 0.66, 0.85, 1.7 M.
        ("resnet20", (3, 32, 32), 10, 269_722),
        ("resnet32", (3, 32, 32), 10, 464_154),
        ("resnet44", (3, 32, 32), 10, 658_586),
        ("resnet56", (3, 32, 32), 10, 853_018),
        ("resnet110", (3, 32, 32), 10, 1_727_962),
        # The published ImageNet weights: 11.69, 21.80, 25.56 M.
        ("resnet18", (3, 224, 224), 1000, 11_689_512),
        ("resnet34", (3, 224, 224), 1000, 21_797_672),
        ("resnet50", (3, 224, 224), 1000, 25_557_032),
    ],
)
def test_parameters_of_the_residual_networks(name: str, shape: tuple[int, ...], outputs: int, parameters: int) -> None:
    with torch.device("meta"):
        built = build_network(describe_model(Model(backbone=name), input_shape=shape, outputs=outputs), seed=0)
    assert sum(value.numel() for value in built.parameters()) == parameters


def test_the_textbook_network() -> None:
    rows = layer_table(network(["flatten", {"dense": 128, "activation": "relu"}, {"dense": 10}], (1, 28, 28), 10))
    assert [row.parameters for row in rows] == [0, 100_480, 1_290]
    assert [row.output_shape for row in rows] == [(784,), (128,), (10,)]


@pytest.mark.parametrize(
    "layers", [["flatten", {"dense": 9}, {"dense": 4}], [{"conv2d": 6, "stride": 2}, "flatten", {"dense": 4}]]
)
def test_flops_agree_with_torch(layers: list[Any]) -> None:
    built = network(layers, IMAGE)
    with FlopCounterMode(display=False) as counter:
        built(torch.rand(1, *IMAGE))
    assert sum(row.flops for row in layer_table(built)) == counter.get_total_flops()


def test_initial_weights_depend_on_the_seed_and_the_block_alone() -> None:
    layers: list[Any] = ["flatten", {"dense": 8, "activation": "relu"}, {"dense": 4}]
    torch.manual_seed(1)
    first = network(layers, IMAGE, seed=5)
    state = torch.random.get_rng_state()
    torch.rand(10)
    second = network(layers, IMAGE, seed=5)
    assert all(torch.equal(a, b) for a, b in zip(first.state_dict().values(), second.state_dict().values()))
    longer = network(layers[:-1], IMAGE, seed=5, head=[{"dense": 3}, {"dense": 4}])
    assert torch.equal(first.backbone[1][0].weight, longer.backbone[1][0].weight)  # type: ignore[index]
    other = network(layers, IMAGE, seed=6)
    assert not torch.equal(first.head[0].weight, other.head[0].weight)  # type: ignore[arg-type]
    torch.random.set_rng_state(state)


def test_initial_weights_have_the_variance_of_the_papers() -> None:
    built = network(["flatten", {"dense": 400}, {"dense": 300}], (1, 20, 20), 300)
    glorot = 2 / (400 + 300)
    assert abs(built.head[0].weight.var().item() / glorot - 1) < 0.02  # type: ignore[union-attr]
    convolution = network([{"conv2d": 128}, "global_pool", {"dense": 4}], (64, 8, 8)).backbone[0]
    assert abs(convolution.weight.var().item() / (2 / (128 * 9)) - 1) < 0.05  # type: ignore[union-attr]


def test_a_new_head_keeps_the_very_same_backbone() -> None:
    old = network(["flatten", {"dense": 8}, {"dense": 4}], IMAGE)
    new = replace_head(old, [{"dense": 5}, {"dense": "auto"}], outputs=7, seed=1)
    assert new(torch.rand(2, *IMAGE)).shape == (2, 7)
    assert new.backbone is old.backbone
    assert [block.part for block in new.blocks()] == ["backbone", "backbone", "head", "head"]
    assert build_network(new.spec, seed=0).state_dict().keys() == new.state_dict().keys()


def test_inputs_of_another_size() -> None:
    dense = network(["flatten", {"dense": 8}, {"dense": 4}], (1, 28, 28))
    with pytest.raises(RecipeError, match=r"resize: \[28, 28\]"):
        fit_input(dense, (1, 8, 8))
    convolutional = network([{"conv2d": 4}, "global_pool", {"dense": 4}], (1, 28, 28))
    assert fit_input(convolutional, (1, 8, 8)).spec.input_shape == (1, 8, 8)
    with pytest.raises(RecipeError, match="1×28×28"):
        fit_input(convolutional, (3, 28, 28))


def test_saved_and_loaded_bit_for_bit(tmp_path: Path) -> None:
    built = network([{"conv2d": 4}, "batch_norm", "relu", "global_pool", {"dense": 4}], IMAGE)
    save_model(tmp_path, built, {"preprocessor": {"a": [1, 2]}})
    loaded = load_network(tmp_path)
    assert loaded.extra == {"preprocessor": {"a": [1, 2]}}
    inputs = torch.rand(3, *IMAGE)
    assert torch.equal(loaded.network.eval()(inputs), built.eval()(inputs))


@pytest.mark.parametrize(
    ("file", "content"),
    [
        ("config.json", None),
        ("config.json", b""),
        ("config.json", b"{"),
        ("config.json", b"[]"),
        ("config.json", b"{}"),
        ("config.json", b'{"model_type": "bert"}'),
        ("config.json", b'{"model_type": "tunewright", "format": 99, "network": {}}'),
        ("config.json", b'{"model_type": "tunewright", "format": 1, "network": {}}'),
        (
            "config.json",
            b'{"model_type": "tunewright", "format": 1, "network": {"backbone": {"layers": ["nothing"]}, "head": [], "input_shape": [3], "outputs": 1}}',
        ),
        (
            "config.json",
            b'{"model_type": "tunewright", "format": 1, "network": {"backbone": {"layers": []}, "head": [{"dense": 9}], "input_shape": [3], "outputs": 9}}',
        ),
        ("model.safetensors", None),
        ("model.safetensors", b""),
        ("model.safetensors", b"\x80\x04\x95cos\nsystem\n"),
        ("model.safetensors", b"\xff" * 100),
    ],
)
def test_a_damaged_model_is_refused(tmp_path: Path, file: str, content: bytes | None) -> None:
    save_model(tmp_path, network(["flatten", {"dense": 4}], (3,)), {})
    (tmp_path / "checksums.json").unlink()  # as a stranger's folder
    (tmp_path / file).unlink() if content is None else (tmp_path / file).write_bytes(content)
    with pytest.raises(ArtifactError) as caught:
        load_network(tmp_path)
    assert str(tmp_path) in caught.value.message and caught.value.exit_code == 2


@pytest.mark.parametrize("place", range(0, 400, 7))
def test_a_flipped_or_cut_weight_file_never_ends_in_a_traceback(tmp_path: Path, place: int) -> None:
    save_model(tmp_path, network(["flatten", {"dense": 4}], (3,)), {})
    content = bytearray((tmp_path / "model.safetensors").read_bytes())
    place = min(place, len(content) - 1)
    (tmp_path / "model.safetensors").write_bytes(content[:place])
    with pytest.raises(ArtifactError, match="another size than was written"):
        load_network(tmp_path)
    (tmp_path / "checksums.json").unlink()  # as a stranger's folder
    with pytest.raises(ArtifactError):
        load_network(tmp_path)


MALFORMED: list[dict[str, Any]] = [
    {"layers": []},
    {"layers": ["dens"]},
    {"layers": [{"dense": 0}]},
    {"layers": [{"dense": -3}]},
    {"layers": [{"dense": 2.5}]},
    {"layers": [{"dense": "many"}]},
    {"layers": [{"dense": True}]},
    {"layers": [{"dense": None}]},
    {"layers": ["dense"]},
    {"layers": [{"dense": 4}]},
    {"layers": [{}]},
    {"layers": ["flatten", {"dense": 4, "activation": "rellu"}]},
    {"layers": ["flatten", {"dense": 4, "units": 3}]},
    {"layers": ["flatten", {"dense": 4, "bias": "maybe", "x": 1}]},
    {"layers": ["flatten", {"dense": 10**9}]},
    {"layers": [{"flatten": 3}]},
    {"layers": ["flatten", {"conv2d": 8}, {"dense": 4}]},
    {"layers": [{"conv2d": "auto"}, "flatten", {"dense": 4}]},
    {"layers": [{"conv2d": 8, "kernel": 0}]},
    {"layers": [{"conv2d": 8, "kernel": 2}]},
    {"layers": [{"conv2d": 8, "kernel": 99, "padding": "valid"}]},
    {"layers": [{"conv2d": 8, "padding": "some"}]},
    {"layers": [{"conv2d": 8, "stride": 0}]},
    {"layers": [{"conv2d": 8, "padding": -1}]},
    {"layers": [{"max_pool": 9}, "flatten", {"dense": 4}]},
    {"layers": [{"max_pool": 0}]},
    {"layers": ["flatten", {"max_pool": 2}, {"dense": 4}]},
    {"layers": ["flatten", "global_pool", {"dense": 4}]},
    {"layers": [{"group_norm": 2}, "flatten", {"dense": 4}]},
    {"layers": ["flatten", {"dropout": 1}, {"dense": 4}]},
    {"layers": ["flatten", {"dropout": -0.1}, {"dense": 4}]},
    {"layers": ["flatten", "dropout", {"dense": 4}]},
    {"layers": ["flatten", {"embedding": 4}, {"dense": 4}]},
    {"layers": ["flatten", {"gru": 4}, {"dense": 4}]},
    {"layers": ["flatten", {"reshape": [5, 5]}, "flatten", {"dense": 4}]},
    {"layers": ["flatten", {"reshape": "square"}, {"dense": 4}]},
    {"layers": ["flatten", {"dense": 5}]},
    {"layers": ["flatten", {"dense": 4}, "softmax"]},
    {"layers": ["flatten", {"dense": 4}, "log_softmax"]},
    {"layers": ["flatten"], "backbone": "mlp"},
    {"layers": ["flatten"], "head": []},
    {"layers": ["flatten"], "head": [{"dense": 5}]},
    {"backbone": "resnet19"},
    {"backbone": {"mlp": {"hiden": [3]}}},
    {"backbone": {"mlp": {"hidden": "big"}}},
    {"backbone": {"mlp": {}, "resnet20": {}}},
    {"backbone": {"mlp": {"activation": "rellu"}}},
    {"backbone": {"resnet20": {"depth": 7}}},
]


@pytest.mark.parametrize("model", MALFORMED, ids=str)
def test_malformed_models(model: dict[str, Any]) -> None:
    with pytest.raises(RecipeError) as caught:
        describe_model(Model(**model), input_shape=IMAGE, outputs=4)
    assert "model" in caught.value.message
    assert "expected:" in caught.value.message or "fix:" in caught.value.message


def test_images_are_no_rows() -> None:
    with pytest.raises(RecipeError, match="reads images"):
        describe_model(Model(backbone="resnet20"), input_shape=(12,), outputs=4)


def test_forward_is_backbone_then_head() -> None:
    built = network(["flatten", {"dense": 8}, {"dense": 4}], IMAGE)
    inputs = torch.rand(2, *IMAGE)
    assert torch.equal(built(inputs), built.head(built.backbone(inputs)))
    assert isinstance(built, nn.Module)
