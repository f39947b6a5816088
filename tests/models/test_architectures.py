"""Every architecture alike: its blocks, what is frozen and what moves, adapters, heads, saving and loading."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from architectures import ARCHITECTURES, IMAGES, TEXTS, config_of, make_backbone, make_inputs, purpose_of
from tiny_networks import (
    CLASSES,
    logits_of,
    pretrained_network,
    same_logits,
    tiny_network,
    train_network,
)
from tunewright.errors import ArtifactError, RecipeError, RunFailed
from tunewright.models.backbone import open_backbone, weights_folder
from tunewright.models.core.network import Block, evaluating
from tunewright.models.hub.adapters import add_adapter
from tunewright.models.hub.hf_files import continue_from, load_backbone
from tunewright.models.hub.hf_network import Transformer, build_transformer, describe_transformer
from tunewright.models.hub.purposes import MASKED_LM, TEXT_CLASSIFICATION
from tunewright.models.layer_table import layer_table
from tunewright.models.saved_model import load_network, save_model
from tunewright.recipe.schema import Tune, Unfreeze
from tunewright.training import freezing
from tunewright.training.freeze_certificate import certify, fingerprint

OWN_HEAD: list[Any] = [{"dense": 8, "activation": "relu"}, {"dense": "auto"}]
# A transformer or a net of convolutions, with a text or an image, one head or several parts in it.
VARIED = ["bert", "deberta-v2", "modernbert", "resnet", "swin"]


def backbone_of(network: Transformer) -> list[Block]:
    return [block for block in network.blocks() if block.part == "backbone"]


@pytest.mark.parametrize("kind", ARCHITECTURES)
def test_every_parameter_is_in_one_block_and_the_blocks_are_in_order(kind: str) -> None:
    network = tiny_network(kind)
    blocks = network.blocks()
    assert " ".join(block.name for block in backbone_of(network)) == ARCHITECTURES[kind][1]
    held = [name for block in blocks for name in block.parameters()]
    assert sorted(held) == sorted(name for name, _ in network.named_parameters())
    assert all(block.prefix + name in network.state_dict() for block in blocks for name in block.module.state_dict())
    assert logits_of(network, kind).shape == (4, len(CLASSES))


def test_a_tensor_that_two_blocks_share_is_the_first_ones() -> None:
    """The masked-language head's last layer is the embeddings' table."""
    described = describe_transformer(MASKED_LM, config_of("bert"), head=None, classes=None)
    network = build_transformer(described, seed=0)
    blocks = {block.title: block for block in network.blocks()}
    shared = blocks["head.cls"].elsewhere
    assert any(name.endswith("decoder.weight") for name in shared)
    for tune in (Tune(freeze="embeddings"), Tune(freeze="backbone"), Tune(layer_lr_decay=0.5)):
        movements = freezing.resolve_trainable(network, tune)
        groups = freezing.parameter_groups(movements, 1.0)
        held = [id(value) for group in groups for value in group["params"]]
        assert len(held) == len(set(held))
        before = fingerprint(network)
        freezing.start_epoch(movements, 0)
        with torch.no_grad():
            for group in groups:
                for value in group["params"]:
                    value.add_(0.1)
        certificate = certify(movements, before, fingerprint(network), 1)
        assert certificate.passed and not certificate.warnings
        moved = network.core.get_input_embeddings().weight
        assert moved.requires_grad == (tune.freeze == "none")


@pytest.mark.parametrize("kind", ARCHITECTURES)
def test_freezing_by_number_fraction_name_pattern_and_part(kind: str) -> None:
    network = tiny_network(kind)
    names = [block.name for block in backbone_of(network) if block.parameters()]

    def frozen(freeze: Any) -> list[str]:
        found = freezing.resolve_trainable(network, Tune(freeze=freeze))
        return [m.block.name for m in found if m.from_epoch is None and m.block.parameters()]

    assert frozen("backbone") == names and frozen("none") == [] and frozen(0) == []
    assert frozen(2) == names[:2] and frozen(0.5) == names[: round(0.5 * len(names))]
    assert frozen(names[1]) == [names[1]] and frozen([names[0], names[2]]) == [names[0], names[2]]
    assert frozen(r"re:\.0$") == [name for name in names if name.endswith(".0")]
    if kind == "mobilenet_v2":
        with pytest.raises(RecipeError, match="conv_stem"):
            frozen("embeddings")
    else:
        assert frozen("embeddings")[0] == names[0]
        assert all("embed" in name or name.endswith("bias") for name in frozen("embeddings"))
    with pytest.raises(RecipeError, match="matches nothing"):
        frozen(len(names) + 1)


@pytest.mark.parametrize("kind", ARCHITECTURES)
def test_rates_by_block_and_gradual_unfreezing(kind: str) -> None:
    network = tiny_network(kind)
    tune = Tune(
        freeze="backbone",
        unfreeze=[Unfreeze(epoch=2, layers=1), Unfreeze(epoch=3, layers="all")],
        layer_lr_decay=0.5,
        head_lr_multiplier=10,
    )
    movements = freezing.resolve_trainable(network, tune)
    steps = [m for m in movements if m.block.part == "backbone" and m.block.parameters()]
    assert [m.lr_multiplier for m in steps] == [0.5 ** (len(steps) - index) for index in range(len(steps))]
    assert [m.from_epoch for m in steps] == [2] * (len(steps) - 1) + [1]
    head = [m for m in movements if m.block.part == "head"]
    assert all(m.lr_multiplier == 10 and m.from_epoch == 0 for m in head)
    groups = freezing.parameter_groups(movements, 2.0)
    held = [id(value) for group in groups for value in group["params"]]
    assert len(held) == len(set(held)) == len(list(network.parameters()))
    assert {group["lr"] for group in groups} == {2.0 * m.lr_multiplier for m in [*steps, *head]}
    for epoch, trained in ((0, 0), (1, 1), (2, len(steps))):
        freezing.start_epoch(movements, epoch)
        alive = [m for m in steps if all(value.requires_grad for value in m.block.parameters().values())]
        assert len(alive) == trained
        assert all(module.training == (m in alive) for m in steps for module in m.block.module.modules())


def test_a_parameter_that_is_forgotten_or_counted_twice_stops_the_run() -> None:
    network = tiny_network("bert")
    movements = freezing.resolve_trainable(network, Tune())
    with pytest.raises(RunFailed, match="exactly once") as caught:
        freezing.parameter_groups([*movements, movements[1]], 1.0)
    assert "encoder.layer.0" in caught.value.message and "2 times" in caught.value.message
    known = network.blocks()
    network.blocks = lambda: known[:-1]  # type: ignore[method-assign]
    with pytest.raises(RunFailed, match=r"classifier\.weight: 0 times"):
        freezing.resolve_trainable(network, Tune())


@pytest.mark.parametrize("kind", ARCHITECTURES)
@pytest.mark.parametrize("freeze", ["backbone", 2])
def test_what_is_frozen_stays_to_the_last_bit(kind: str, freeze: Any) -> None:
    network = tiny_network(kind)
    certificate = train_network(network, kind, Tune(freeze=freeze))
    assert certificate.passed and certificate.frozen and certificate.trained
    assert all(block.changed for block in certificate.trained), certificate.warnings
    # A running statistic stands in the certificate too.
    held = sum(block.tensors for block in (*certificate.frozen, *certificate.trained))
    assert held == len(network.state_dict())


@pytest.mark.parametrize("kind", ["bert", "resnet", "mobilenet_v2", "convnext", "swin"])
def test_frozen_parts_drop_nothing_and_keep_their_statistics(kind: str) -> None:
    network = tiny_network(kind)
    freezing.start_epoch(freezing.resolve_trainable(network, Tune(freeze="backbone")), 0)
    inputs = make_inputs(kind)
    before = fingerprint(network.base)

    def call() -> Any:
        return network.base(**inputs) if isinstance(inputs, dict) else network.base(inputs)

    assert torch.equal(call()[0], call()[0])
    assert fingerprint(network.base) == before
    freezing.start_epoch(freezing.resolve_trainable(network, Tune()), 0)
    first, second = call()[0], call()[0]
    moved = fingerprint(network.base) != before
    assert moved == (kind in ("resnet", "mobilenet_v2")), "trained, its statistics move"
    assert moved or not torch.equal(first, second), "trained, it drops"


ADAPTERS: dict[str, Any] = {
    "lora": {"lora": {"r": 4}},
    "rslora": {"lora": {"r": 4, "rslora": True, "dropout": 0.1}},
    "dora": {"lora": {"r": 4, "dora": True}},
    "attention": {"lora": {"target": "attention"}},
    "ia3": "ia3",
    "bitfit": "bitfit",
}
# What an architecture has no place for.
CANNOT = {
    ("bitfit", "modernbert"): "has none",
    ("attention", "resnet"): "matches none",
    ("attention", "convnext"): "matches none",
    ("attention", "mobilenet_v2"): "matches none",
    ("any", "mobilenet_v2"): "cannot be computed",
}


@pytest.mark.parametrize("kind", ARCHITECTURES)
@pytest.mark.parametrize("name", ADAPTERS)
def test_an_adapter_starts_as_nothing_and_moves_alone(tmp_path: Path, kind: str, name: str) -> None:
    adapter = ADAPTERS[name]
    network = pretrained_network(tmp_path / "base", kind)
    plain = logits_of(network, kind)
    if (why := CANNOT.get((name, kind))) is not None or ((why := CANNOT.get(("any", kind))) and name != "bitfit"):
        with pytest.raises(RecipeError, match=why):
            add_adapter(network, adapter, seed=0)
        return
    adapted = add_adapter(network, adapter, seed=0)
    assert isinstance(adapted, Transformer)
    assert torch.allclose(logits_of(adapted, kind), plain, atol=1e-5)
    certificate = train_network(adapted, kind, Tune(adapter=adapter), epochs=2)
    assert certificate.passed and certificate.frozen
    moving = sum(block.parameters for block in certificate.trained)
    assert 0 < moving < 0.6 * sum(value.numel() for value in adapted.parameters())
    assert not torch.allclose(logits_of(adapted, kind), plain, atol=1e-5)
    save_model(tmp_path / "model", adapted, {})
    loaded = load_network(tmp_path / "model").network
    assert same_logits(logits_of(loaded, kind), logits_of(adapted, kind))


@pytest.mark.parametrize("kind", ARCHITECTURES)
def test_layers_of_ones_own_as_the_head(tmp_path: Path, kind: str) -> None:
    network = pretrained_network(tmp_path / "base", kind, head=OWN_HEAD)
    heads = [block for block in network.blocks() if block.part == "head"]
    sizes = [value.shape[0] for block in heads for value in block.parameters().values() if value.dim() == 2]
    assert sizes[-2:] == [8, len(CLASSES)]
    assert train_network(network, kind, Tune(freeze="backbone")).passed
    save_model(tmp_path / "model", network, {})
    assert same_logits(logits_of(load_network(tmp_path / "model").network, kind), logits_of(network, kind))
    if ("any", kind) in CANNOT:
        return
    adapted = add_adapter(pretrained_network(tmp_path / "again", kind, head=OWN_HEAD), "ia3", seed=0)
    assert isinstance(adapted, Transformer) and train_network(adapted, kind, Tune(adapter="ia3")).passed
    save_model(tmp_path / "adapter", adapted, {})
    assert same_logits(logits_of(load_network(tmp_path / "adapter").network, kind), logits_of(adapted, kind))


def test_a_head_that_does_not_fit_is_an_error() -> None:
    with pytest.raises(RecipeError, match="as many outputs"):
        describe_transformer(TEXT_CLASSIFICATION, config_of("bert"), head=[{"dense": 7}], classes=CLASSES)
    with pytest.raises(RecipeError, match=r"model\.head, layer 1"):
        tiny_network("bert", head=[{"conv2d": 3}, {"dense": "auto"}])


# What somebody who has never heard of us runs: {folder: kind} and the inputs' file come as arguments.
ELSEWHERE = """
import json, sys
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForImageClassification, AutoModelForSequenceClassification
from peft import AutoPeftModel, AutoPeftModelForSequenceClassification, PeftModel

found = {}
for job in json.load(open(sys.argv[1])):
    text, folder = job["text"], job["folder"]
    auto = AutoModelForSequenceClassification if text else AutoModelForImageClassification
    labels = {int(key): value for key, value in job["labels"].items()}
    ways = {}
    if not job["adapter"]:
        ways["auto"] = auto.from_pretrained(folder)
    else:
        known = {"id2label": labels, "label2id": {value: key for key, value in labels.items()}}
        if not job["dora"]:  # Transformers' own reader of adapters leaves DoRA's lengths out
            ways["auto"] = auto.from_pretrained(folder, **known)
        ways["peft"] = PeftModel.from_pretrained(auto.from_pretrained(job["base"], **known), folder)
        automatic = AutoPeftModelForSequenceClassification if text else AutoPeftModel
        ways["autopeft"] = automatic.from_pretrained(folder, **known)
    inputs = load_file(job["inputs"])
    for way, model in ways.items():
        assert model.config.id2label == labels, (folder, way, model.config.id2label)
        with torch.no_grad():
            found[job["folder"] + " " + way] = model.eval()(**inputs).logits.contiguous()
save_file(found, sys.argv[2])
"""


@pytest.mark.parametrize("kinds", [["bert", "resnet"], pytest.param(list(ARCHITECTURES), marks=pytest.mark.slow)])
def test_the_saved_folder_opens_elsewhere_with_the_same_logits(tmp_path: Path, kinds: list[str]) -> None:
    """In one fresh process, by the libraries' own classes: whole models of all architectures, adapters of some."""
    from safetensors.torch import load_file, save_file

    jobs: list[dict[str, Any]] = []
    expected: dict[str, Tensor] = {}
    for kind in kinds:
        plans: dict[str, Any] = {"whole": None}
        if kind in VARIED:
            plans |= {"lora": {"lora": {"r": 2}}}
        if kind in ("bert", "resnet"):
            plans |= {"dora": {"lora": {"r": 2, "dora": True}}, "ia3": "ia3"}
        inputs = make_inputs(kind)
        save_file({"pixel_values": inputs} if isinstance(inputs, Tensor) else inputs, tmp_path / f"{kind}.inputs")
        for plan, adapter in plans.items():
            folder = tmp_path / f"{kind}-{plan}"
            network = pretrained_network(tmp_path / f"{kind}-base", kind)
            if adapter is not None:
                network = add_adapter(network, adapter, seed=0)
                assert isinstance(network, Transformer)
            train_network(network, kind, Tune(adapter=adapter, freeze="none" if adapter else "backbone"))
            save_model(folder, network, {})
            beside = json.loads((folder / "tunewright.json").read_text())
            jobs.append(
                {
                    "folder": str(folder),
                    "base": str(tmp_path / f"{kind}-base"),
                    "adapter": adapter is not None,
                    "dora": plan == "dora",
                    "text": kind in TEXTS,
                    "labels": beside["network"]["config"]["id2label"],
                    "inputs": str(tmp_path / f"{kind}.inputs"),
                }
            )
            expected[str(folder)] = logits_of(network, kind)
    (tmp_path / "jobs.json").write_text(json.dumps(jobs))
    done = subprocess.run(
        [sys.executable, "-c", ELSEWHERE, str(tmp_path / "jobs.json"), str(tmp_path / "found")],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": "", "TRANSFORMERS_VERBOSITY": "error"},
        cwd=tmp_path,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    found = load_file(tmp_path / "found")
    assert len(found) == len(kinds) + 3 * len(set(kinds) & set(VARIED)) + 2 * (2 + 3)
    for name, value in found.items():
        assert same_logits(value, expected[name.rpartition(" ")[0]]), name


def test_weights_in_half_precision_and_in_several_files(tmp_path: Path) -> None:
    from transformers import AutoModel

    for dtype in (torch.float16, torch.bfloat16):
        folder = make_backbone(tmp_path / f"{dtype}", "bert")
        model = AutoModel.from_pretrained(folder).to(dtype)
        model.save_pretrained(folder, max_shard_size="10KB")
        if (folder / "model.safetensors").exists():
            (folder / "model.safetensors").unlink()
        assert (folder / "model.safetensors.index.json").exists()
        backbone = open_backbone(str(folder), Path("/"))
        described = describe_transformer(TEXT_CLASSIFICATION, backbone.config, head=None, classes=CLASSES)
        network = load_backbone(weights_folder(backbone), described, seed=0).network
        assert all(value.dtype == torch.float32 for value in network.parameters())
        for name, value in model.state_dict().items():
            if "pooler" not in name:
                assert torch.equal(network.base.state_dict()[name], value.float()), name
        save_model(tmp_path / f"{dtype}-saved", network, {})
        assert torch.equal(
            logits_of(load_network(tmp_path / f"{dtype}-saved").network, "bert"), logits_of(network, "bert")
        )


@pytest.mark.parametrize("parts", [1, 3])
def test_weights_in_the_older_format_are_converted_once(tmp_path: Path, own_cache: Path, parts: int) -> None:
    folder = make_backbone(tmp_path / "base", "bert")
    from safetensors.torch import load_file

    tensors = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    names = sorted(tensors)
    if parts == 1:
        torch.save(tensors, folder / "pytorch_model.bin")
    else:
        files = [f"pytorch_model-{i + 1:05d}-of-{parts:05d}.bin" for i in range(parts)]
        for index, file in enumerate(files):
            torch.save({name: tensors[name] for name in names[index::parts]}, folder / file)
        weight_map = {name: files[index % parts] for index, name in enumerate(names)}
        (folder / "pytorch_model.bin.index.json").write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))
    backbone = open_backbone(str(folder), Path("/"))
    converted = weights_folder(backbone)
    assert converted.is_relative_to(own_cache)
    times = [path.stat().st_mtime_ns for path in sorted(converted.iterdir())]
    assert weights_folder(backbone) == converted
    assert [path.stat().st_mtime_ns for path in sorted(converted.iterdir())] == times
    described = describe_transformer(TEXT_CLASSIFICATION, backbone.config, head=None, classes=CLASSES)
    network = load_backbone(converted, described, seed=0).network
    assert all(torch.equal(network.base.state_dict()[name], value) for name, value in tensors.items())


@pytest.mark.parametrize("kind", ["bert", "vit"])
def test_weights_that_do_not_fit_are_refused_with_their_names(tmp_path: Path, kind: str) -> None:
    from safetensors.torch import load_file, save_file

    folder = make_backbone(tmp_path / "base", kind)
    tensors = load_file(folder / "model.safetensors")
    described = describe_transformer(
        purpose_of(kind), json.loads((folder / "config.json").read_text()), head=None, classes=CLASSES
    )
    layer = sorted(name for name in tensors if ".layer.1." in name)
    save_file({name: value for name, value in tensors.items() if name not in layer}, folder / "model.safetensors")
    with pytest.raises(ArtifactError, match=f"{len(layer)} of the") as caught:
        load_backbone(folder, described, seed=0)
    assert "1.attention" in caught.value.message and caught.value.exit_code == 2
    save_file({**tensors, layer[0]: torch.zeros(3, 3)}, folder / "model.safetensors")
    with pytest.raises(ArtifactError, match="another shape") as caught:
        load_backbone(folder, described, seed=0)
    assert "[3, 3]" in caught.value.message
    save_file({**tensors, layer[0].replace(".1.", ".7.", 1): torch.zeros(2)}, folder / "model.safetensors")
    started = load_backbone(folder, described, seed=0)
    assert len(started.unused) == 1 and ".7." in started.unused[0]
    assert {name.rpartition(".")[0] for name in started.new} == {"classifier"}


def test_a_head_that_came_with_the_weights_is_kept_for_the_same_classes_only(tmp_path: Path) -> None:
    network = pretrained_network(tmp_path / "base", "roberta")
    save_model(tmp_path / "model", network, {})
    config = json.loads((tmp_path / "model" / "config.json").read_text())
    same = describe_transformer(TEXT_CLASSIFICATION, config, head=None, classes=CLASSES)
    started = load_backbone(tmp_path / "model", same, seed=5)
    assert started.new == [] and torch.equal(logits_of(started.network, "roberta"), logits_of(network, "roberta"))
    other = describe_transformer(TEXT_CLASSIFICATION, config, head=None, classes=["x", "y", "z"])
    started = load_backbone(tmp_path / "model", other, seed=5)
    assert started.new and all(name.startswith("classifier.") for name in started.new)
    assert not torch.allclose(logits_of(started.network, "roberta"), logits_of(network, "roberta"))
    assert torch.equal(
        started.network.base.state_dict()["embeddings.word_embeddings.weight"],
        network.base.state_dict()["embeddings.word_embeddings.weight"],
    )


@pytest.mark.parametrize("adapter", [None, {"lora": {"r": 2}}])
def test_another_purpose_goes_on_with_what_was_learned(tmp_path: Path, adapter: Any) -> None:
    network = pretrained_network(tmp_path / "base", "bert")
    if adapter is not None:
        network = add_adapter(network, adapter, seed=0)
        assert isinstance(network, Transformer)
    train_network(network, "bert", Tune(adapter=adapter), epochs=2)
    with evaluating(network), torch.no_grad():
        learned = network.base(**make_inputs("bert"))[0]
    described = describe_transformer(TEXT_CLASSIFICATION, config_of("bert"), head=None, classes=["x", "y"])
    started = continue_from(network, described, seed=3)
    with evaluating(started.network), torch.no_grad():
        assert torch.allclose(started.network.base(**make_inputs("bert"))[0], learned, atol=1e-5)
    assert set(started.new) == {"classifier.weight", "classifier.bias"}


def test_an_adapter_needs_weights_that_are_kept() -> None:
    with pytest.raises(RecipeError, match="random"):
        add_adapter(tiny_network("bert"), "lora", seed=0)
    with pytest.raises(RecipeError, match="matches none") as caught:
        add_adapter(
            Transformer(tiny_network("bert").model, replace(tiny_network("bert").spec, base="x")),
            {"lora": {"target": ["nothing"]}},
            seed=0,
        )
    assert "query" in caught.value.message
    assert set(IMAGES) | set(TEXTS) == set(ARCHITECTURES) and len(ARCHITECTURES) >= 10


def _norm_flops(network: Transformer, tokens: int) -> int:
    """5 a value, as for any norm here."""
    return sum(5 * tokens * m.normalized_shape[0] for m in network.modules() if isinstance(m, nn.LayerNorm))


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_operations_of_bert_agree_with_a_count_by_hand(attention: str) -> None:
    """2 · parameters · T for the matrices, 4 · T² · H a layer for attention (Kaplan et al. 2020, table 1)."""
    network, tokens, width, layers = tiny_network("bert"), 24, 16, 3
    network.core.set_attn_implementation(attention)
    rows = {row.block: row.flops for row in layer_table(network, network.example((tokens,)))}
    matrices = 4 * width * width + 2 * width * 32
    layer = 2 * matrices * tokens + 4 * tokens**2 * width + 2 * 5 * tokens * width
    assert [rows[f"backbone.encoder.layer.{index}"] for index in range(layers)] == [layer] * layers
    # Of the first token alone: the pooler and the classes.
    assert rows["backbone.pooler"] == 2 * width * width + width and rows["head.classifier"] == 2 * width * 3
    assert rows["backbone.embeddings"] == 5 * tokens * width


def test_operations_of_vit_agree_with_a_count_by_hand_and_with_torch() -> None:
    network, width = tiny_network("vit"), 16
    tokens = (32 // 8) ** 2 + 1
    rows = {row.block: row.flops for row in layer_table(network)}
    layer = 2 * (4 * width * width + 2 * width * 32) * tokens + 4 * tokens**2 * width
    assert rows["backbone.layers.0"] == layer + 2 * 5 * tokens * width
    assert rows["backbone.embeddings"] == 2 * 3 * 8 * 8 * width * (tokens - 1)
    network.core.set_attn_implementation("eager")
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        network(network.example())
    assert counter.get_total_flops() == sum(rows.values()) - _norm_flops(network, tokens)
