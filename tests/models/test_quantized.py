"""Frozen matrices of 4 and 8 bits, adapters beside them, and the optimiser of 8 bits."""

from __future__ import annotations

import copy
import gc
import json
import sys
import weakref
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from architectures import ARCHITECTURES
from fine_tuning import fine_tune, run_card_code
from gpt_networks import gpt_network
from tiny import texts, tiny_bert
from tiny_networks import logits_of, pretrained_network, same_logits, train_network
from tunewright.console import silent
from tunewright.errors import RecipeError
from tunewright.hardware.memory_tracer import Tracer
from tunewright.models.core.meta_weights import FakeShapes, building_with, use_fake_weights
from tunewright.models.hub import quantization as quantized
from tunewright.models.hub.adapters import add_adapter
from tunewright.models.hub.hf_files import load_backbone, merged
from tunewright.models.hub.hf_network import Transformer
from tunewright.models.hub.quantization import QuantizedLinear, quantize, restore, size
from tunewright.models.saved_model import load_network, save_model
from tunewright.planning.fit_to_budget import RISKY
from tunewright.planning.plan import plan
from tunewright.recipe.schema import Tune
from tunewright.training.optimizers.adam_8bit import PIECE, SMALL
from tunewright.training.optimizers.registry import build_optimizer, load_state_tensors, state_tensors

KINDS = ["nf4", "int8"]
# Dettmers et al. 2023, appendix E.
LEVELS = [
    -1.0, -0.6961928009986877, -0.5250730514526367, -0.39491748809814453, -0.28444138169288635, -0.18477343022823334,
    -0.09105003625154495, 0.0, 0.07958029955625534, 0.16093020141124725, 0.24611230194568634, 0.33791524171829224,
    0.44070982933044434, 0.5626170039176941, 0.7229568362236023, 1.0,
]  # fmt: skip


def layer_of(kind: Any, rows: int = 128, columns: int = 64, seed: int = 0) -> tuple[QuantizedLinear, nn.Linear]:
    """A layer in few bits, and the one that it was made from."""
    torch.manual_seed(seed)
    plain = nn.Linear(columns, rows)
    holder = nn.Sequential(copy.deepcopy(plain))
    quantize(holder, ["0"], kind)
    layer = holder[0]
    assert isinstance(layer, QuantizedLinear)
    return layer, plain


def test_nf4_has_the_levels_of_the_paper() -> None:
    layer, plain = layer_of("nf4")
    blocks, given = layer.weight.reshape(-1, 64), plain.weight.detach().reshape(-1, 64)
    scales = blocks.abs().amax(1, keepdim=True)
    assert torch.allclose(scales, given.abs().amax(1, keepdim=True), rtol=0.02)  # they are rounded to 8 bits
    levels = torch.tensor(LEVELS)
    distance = ((blocks / scales)[:, :, None] - levels).abs()
    assert distance.amin(2).max() < 1e-6
    exact = given.abs().amax(1, keepdim=True)
    nearest = ((given / exact)[:, :, None] - levels).abs().argmin(2)
    assert (nearest == distance.argmin(2)).float().mean() > 0.999


def test_int8_rounds_each_row_to_127_parts_of_its_largest() -> None:
    layer, plain = layer_of("int8")
    given = plain.weight.detach()
    parts = given.abs().amax(1, keepdim=True) / 127
    assert (layer.weight - given).abs().max() <= parts.max() / 2 * 1.001
    assert torch.allclose(layer.weight / parts, (given / parts).round(), atol=1e-4)
    layer.keep(torch.zeros_like(given))
    assert torch.equal(layer.weight, torch.zeros_like(given)), "rows of zeros have no largest"


@pytest.mark.parametrize(("kind", "bits"), [("nf4", 4.13), ("int8", 8.02)])
def test_bits_a_number(kind: str, bits: float) -> None:
    layer, _ = layer_of(kind, 2048, 2048)
    state = layer.state_dict()
    held = sum(
        8 * value.numel() * value.element_size() for name, value in state.items() if name not in ("bias", "levels")
    )
    assert held / 2048**2 == pytest.approx(bits, abs=0.005)
    assert size(layer.kept) == 2048**2


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("shape", [(5, 64), (2, 3, 64)])
def test_the_product_and_its_gradients_are_those_of_the_rounded_matrix(kind: str, shape: tuple[int, ...]) -> None:
    layer, _ = layer_of(kind)
    holder = nn.Sequential(copy.deepcopy(layer))
    restore(holder)
    plain = holder[0]
    assert type(plain) is nn.Linear

    def computed(module: nn.Module) -> list[Tensor]:
        inputs = torch.linspace(-1, 1, torch.Size(shape).numel()).reshape(shape).requires_grad_()
        bias = module.bias
        assert isinstance(bias, Tensor)
        outputs = module(inputs)
        return [outputs, *torch.autograd.grad(outputs.square().sum(), [inputs, bias])]

    for ours, theirs in zip(computed(layer), computed(plain)):
        assert torch.allclose(ours, theirs, rtol=1e-5, atol=1e-5)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        reduced = layer(torch.ones(2, 64))
        assert reduced.dtype == torch.bfloat16 and torch.equal(reduced, plain(torch.ones(2, 64)))


@pytest.mark.parametrize("kind", KINDS)
def test_on_meta_weights_it_has_the_same_memory(kind: Any) -> None:
    """What a plan follows: the real layer's operations, on meta tensors."""
    peaks: list[int] = []
    for meta in (False, True):
        with building_with("meta" if meta else "pretrained"):
            network = nn.Sequential(nn.Linear(64, 128), nn.Linear(128, 64))
            quantize(network, ["0", "1"], kind)
        if meta:
            use_fake_weights(network)
        inputs = torch.zeros(8, 64, requires_grad=True)
        with Tracer({"weights": [*network.parameters(), *network.buffers()]}) as tracer, FakeShapes():
            network(inputs).sum().backward()
        peaks.append(tracer.most)
    assert peaks[0] == peaks[1] > 0


def test_what_cannot_be_kept_in_few_bits(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(RecipeError, match="no linear layer"):
        quantize(nn.Sequential(nn.Conv2d(1, 1, 3), nn.Linear(3, 3)), ["0", "1"], "nf4")
    quantized.bitsandbytes.cache_clear()
    monkeypatch.setattr(quantized, "find_spec", lambda name: None)
    with pytest.raises(RecipeError, match=r"tunewright\[quantize\]"):
        layer_of("nf4")
    with pytest.raises(RecipeError, match=r"train\.optimizer: adamw"):
        build_optimizer("adamw_8bit", [{"params": [nn.Parameter(torch.ones(1))]}], 0.1, 0.0)
    layer_of("int8")
    quantized.bitsandbytes.cache_clear()


def test_nothing_is_fetched_while_the_library_is_imported(monkeypatch: pytest.MonkeyPatch) -> None:
    ours = ModuleType("kernels")
    monkeypatch.setitem(sys.modules, "kernels", ours)
    with quantized.nothing_fetched(), pytest.raises(ImportError):
        import kernels  # pyright: ignore  # noqa: F401
    assert sys.modules["kernels"] is ours


@pytest.mark.parametrize("kind", [kind for kind in ARCHITECTURES if kind not in ("resnet", "convnext", "mobilenet_v2")])
@pytest.mark.parametrize(
    "adapter", [{"lora": {"r": 4}}, {"lora": {"r": 4, "dora": True}}, "ia3"], ids=["lora", "dora", "ia3"]
)
def test_an_adapter_beside_nf4_learns_and_comes_back(tmp_path: Path, kind: str, adapter: Any) -> None:
    rounded = pretrained_network(tmp_path / "base", kind)
    whole = size_of(rounded)
    adapted = add_adapter(rounded, adapter, seed=0, bits="nf4")
    assert isinstance(adapted, Transformer) and adapted.spec.quantize == "nf4"
    plain = copy.deepcopy(adapted)
    restore(plain)
    before = logits_of(adapted, kind)
    assert torch.allclose(before, logits_of(plain, kind), rtol=1e-4, atol=1e-5)
    certificate = train_network(adapted, kind, Tune(adapter=adapter, quantize="nf4"), epochs=2)
    assert certificate.passed and certificate.frozen
    frozen, moved = (sum(block.parameters for block in blocks) for blocks in (certificate.frozen, certificate.trained))
    assert frozen + moved == size_of(adapted) and frozen <= whole < size_of(adapted)
    assert not torch.allclose(logits_of(adapted, kind), before, atol=1e-4)
    save_model(tmp_path / "model", adapted, {})
    loaded = load_network(tmp_path / "model").network
    assert same_logits(logits_of(loaded, kind), logits_of(adapted, kind))
    assert isinstance(loaded, Transformer)
    learned = logits_of(adapted, kind)
    assert torch.allclose(logits_of(merged(loaded), kind), learned, rtol=1e-3, atol=1e-4)
    assert not any(isinstance(module, QuantizedLinear) for module in merged(loaded).modules())


def size_of(network: nn.Module) -> int:
    return sum(map(size, network.parameters()))


def test_weights_that_were_saved_in_16_bits_are_read_so(tmp_path: Path) -> None:
    network = pretrained_network(tmp_path / "whole", "bert")
    network.core.bfloat16().save_pretrained(tmp_path / "half")
    started = load_backbone(tmp_path / "half", network.spec, seed=0, as_saved=True)
    assert next(started.network.parameters()).dtype == torch.bfloat16
    adapted = add_adapter(started.network, "lora", seed=0, bits="int8")
    types = {value.dtype for value in adapted.parameters()}
    assert types == {torch.int8, torch.float32}


def test_the_whole_matrices_are_let_go_of() -> None:
    """Otherwise the file that they were read from would stay in memory."""
    core = gpt_network(layers=1).core
    names = [name for name, module in core.model.named_modules() if isinstance(module, nn.Linear)]
    held = [weakref.ref(core.model.get_submodule(name)) for name in names]
    quantize(core.model, names, "int8")
    gc.collect()
    assert names and all(module() is None for module in held)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("quantized")
    tiny_bert(folder / "tiny", layers=2)
    texts(folder / "texts.jsonl", 80)
    return folder


@pytest.mark.parametrize("kind", KINDS)
def test_a_whole_run(place: Path, kind: str) -> None:
    tune = {"adapter": "lora", "quantize": kind}
    result = fine_tune(place, kind, tune=tune, train={"epochs": 2, "optimizer": "adamw_8bit"})
    stage = result.stages["finetune"]
    assert stage.summary["certificate"]["passed"]
    counts = stage.summary["model"]["parameters"]
    plain = (
        fine_tune(place, f"plain-{kind}", tune={"adapter": "lora"}).stages["finetune"].summary["model"]["parameters"]
    )
    assert counts == plain, "a matrix has as many numbers in few bits"
    card = (stage.folder / "model" / "README.md").read_text()
    assert f"quantized to {kind}" in card and f"matrices in {kind}" in stage.summary["model"]["title"]
    run_card_code(card, stage.folder / "model")


def test_a_stage_after_another_may_round_what_that_has_learned(place: Path) -> None:
    stages = [{"pretrain": {"tune": {"freeze": 1}}}, {"finetune": {"tune": {"adapter": "lora", "quantize": "nf4"}}}]
    result = fine_tune(place, "after", tune={}, stages=stages)
    saved = load_network(result.stages["finetune"].folder / "model").network
    assert saved.spec.quantize == "nf4"


@pytest.mark.parametrize(
    ("tune", "message"),
    [
        ({"quantize": "nf4"}, "quantized weights cannot be trained"),
        ({"quantize": "nf4", "freeze": "backbone"}, "quantized weights cannot be trained"),
        ({"quantize": "nf4", "adapter": "bitfit"}, "bitfit trains"),
    ],
)
def test_few_bits_without_something_beside_them(place: Path, tune: dict[str, Any], message: str) -> None:
    with pytest.raises(RecipeError, match=message) as caught:
        fine_tune(place, "wrong", tune=tune)
    assert "tune.quantize" in caught.value.message and "tune.adapter" in caught.value.message


def test_a_plan_counts_numbers_and_bytes(place: Path) -> None:
    recipe = {
        "task": "text-classification",
        "data": {"source": "texts.jsonl"},
        "model": {"backbone": "tiny"},
        "tune": {"adapter": "lora"},
    }
    path = place / "plan.json"
    path.write_text(json.dumps(recipe))
    few = ["tune.quantize=nf4", "train.optimizer=adamw_8bit"]
    (plain,), (rounded,) = (plan(path, changed, probe=False, console=silent()) for changed in ([], few))
    assert (plain.parameters, plain.trained) == (rounded.parameters, rounded.trained)
    assert rounded.peak_parts["weights"] < plain.peak_parts["weights"]


def test_a_search_for_what_fits_may_round() -> None:
    from tunewright.recipe.schema import Data, Recipe

    recipe = Recipe(task="text-classification", data=Data(source="x"))
    assert RISKY["4bit"](recipe, None) == {"tune.adapter": {"lora": {"r": 16}}, "tune.quantize": "nf4"}  # pyright: ignore
    assert RISKY["8bit"](recipe, None) == {"train.optimizer": "adamw_8bit"}  # pyright: ignore


# --- the optimiser -----------------------------------------------------------------------------------------------------


def parameters() -> list[nn.Parameter]:
    torch.manual_seed(0)
    return [nn.Parameter(torch.randn(*shape)) for shape in ((PIECE // 512 + 3, 513), (70, 60), (7,))]


def steps(optimizer: Any, moved: list[nn.Parameter], count: int, seed: int = 0) -> None:
    draw = torch.Generator().manual_seed(seed)
    for _ in range(count):
        for value in moved:
            value.grad = torch.randn(value.shape, generator=draw)
        optimizer.step()


def ours(moved: list[nn.Parameter], decay: float = 0.1) -> Any:
    return build_optimizer("adamw_8bit", [{"params": moved, "lr": 0.01}], 0.01, decay)


def test_it_is_the_librarys_to_the_bit_and_adamw_nearly() -> None:
    with quantized.nothing_fetched():
        import bitsandbytes
    first, second, exact = parameters(), parameters(), parameters()
    assert first[0].numel() > PIECE and first[1].numel() > SMALL > first[2].numel()
    steps(ours(first), first, 4)
    steps(bitsandbytes.optim.AdamW8bit(second, lr=0.01, weight_decay=0.1), second, 4)
    steps(build_optimizer("adamw", [{"params": exact, "lr": 0.01}], 0.01, 0.1), exact, 4)
    with torch.no_grad():
        for one, other, true in zip(first, second, exact):
            assert torch.equal(one, other)
            assert (one - true).norm() / true.norm() < 2e-3


def test_its_memory_is_two_bytes_a_number() -> None:
    moved = parameters()
    optimizer = ours(moved)
    steps(optimizer, moved, 1)
    state = optimizer.state[moved[0]]
    held = sum(value.numel() * value.element_size() for value in state.values())
    assert held / moved[0].numel() == pytest.approx(2 + 8 / 256, rel=1e-3)
    assert {value.dtype for value in optimizer.state[moved[2]].values()} == {torch.float32}


def test_it_goes_on_from_a_file_to_the_bit() -> None:
    through, again = parameters(), parameters()
    whole = ours(through)
    steps(whole, through, 2)
    names = ["a", "b", "c"]
    kept = {name: value.clone() for name, value in state_tensors(whole, names).items()}
    with torch.no_grad():
        for value, other in zip(again, through):
            value.copy_(other)
    resumed = ours(again)
    load_state_tensors(resumed, names, kept)
    steps(whole, through, 2, seed=1)
    steps(resumed, again, 2, seed=1)
    assert all(torch.equal(one, other) for one, other in zip(through, again))
