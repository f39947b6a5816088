"""Frozen blocks computed once: the same logits, the same result, kept by content, made anew when damaged."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from architectures import make_inputs
from tiny import texts, tiny_bert
from tiny_networks import tiny_network
from tunewright.console import silent
from tunewright.data.batches import feature_cache as kept
from tunewright.data.batches.examples import Ragged, TensorExamples, TokenExamples
from tunewright.data.batches.feature_cache import Form, content_hash, find_kept, keep
from tunewright.models.build import build_network, describe_model
from tunewright.models.core.network import evaluating
from tunewright.models.frozen_prefix import AfterPrefix, as_inputs, cut, frozen_blocks, outputs_of
from tunewright.pipeline.results.predictions import read_predictions
from tunewright.pipeline.session import frozen_features as prefix_stage
from tunewright.recipe.schema import Model
from tunewright.run_recipe import run

KINDS = ["bert", "roberta", "distilbert", "deberta-v2", "modernbert", "electra", "resnet", "vit", "convnext", "swin"]


@pytest.mark.parametrize("share", ["some", "all"])
@pytest.mark.parametrize("kind", KINDS)
def test_the_cut_network_gives_the_same(kind: str, share: str) -> None:
    network = tiny_network(kind)
    backbone = [block for block in network.blocks() if block.part == "backbone"]
    still = backbone if share == "all" else backbone[: len(backbone) // 2 + 1]
    blocks = frozen_blocks(network, {block.title for block in still})
    assert blocks == still
    prefix = cut(network, blocks, make_inputs(kind, 4, length=9), 1e-5)
    assert prefix is not None
    with evaluating(network), torch.no_grad():
        inputs = make_inputs(kind, 7, length=12)
        found = AfterPrefix(network, prefix)(as_inputs(inputs, outputs_of(network, prefix, inputs)))
        assert torch.allclose(found, network(inputs), atol=1e-5)
    for module in network.modules():
        assert "forward" not in vars(module)


def test_only_what_is_read_is_kept() -> None:
    for kind in ("bert", "roberta", "vit"):
        network = tiny_network(kind)
        backbone = [block for block in network.blocks() if block.part == "backbone"]
        prefix = cut(network, backbone, make_inputs(kind, 4, length=9), 1e-5)
        assert prefix is not None
        assert [slot.kept_shape for slot in prefix.slots] == [(16,)], kind


def test_the_frozen_part_is_not_computed() -> None:
    network = tiny_network("bert")
    blocks = [block for block in network.blocks() if block.part == "backbone"][:3]
    prefix = cut(network, blocks, make_inputs("bert", 4, length=9), 1e-5)
    assert prefix is not None
    inputs = make_inputs("bert", 3, length=8)
    with evaluating(network), torch.no_grad():
        kept_outputs = outputs_of(network, prefix, inputs)
        before = network(inputs)
        for block in blocks:
            for value in block.module.parameters():
                value.fill_(torch.nan)
        assert torch.allclose(AfterPrefix(network, prefix)(as_inputs(inputs, kept_outputs)), before, atol=1e-6)
        assert network(inputs).isnan().all()


def test_gradients_are_the_same() -> None:
    network = tiny_network("bert")
    blocks = [block for block in network.blocks() if block.part == "backbone"][:2]
    inputs = make_inputs("bert", 4, length=9)
    prefix = cut(network, blocks, inputs, 1e-5)
    assert prefix is not None
    moving = {
        n: p for b in network.blocks() if b.title not in {x.title for x in blocks} for n, p in b.parameters().items()
    }
    with evaluating(network):
        plain = torch.autograd.grad(network(inputs).square().sum(), list(moving.values()))
        with torch.no_grad():
            values = outputs_of(network, prefix, inputs)
        quick = torch.autograd.grad(
            AfterPrefix(network, prefix)(as_inputs(inputs, values)).square().sum(), list(moving.values())
        )
    for one, other in zip(plain, quick):
        assert torch.allclose(one, other, atol=1e-5)


def test_our_own_networks_too() -> None:
    layers: list[Any] = [{"conv2d": 4}, "batch_norm", "relu", {"conv2d": 4}, "flatten", {"dense": 3}]
    network = build_network(describe_model(Model(layers=layers), input_shape=(1, 8, 8), outputs=3), seed=0)
    backbone = [block for block in network.blocks() if block.part == "backbone"]
    for count in (3, len(backbone)):
        prefix = cut(network, backbone[:count], torch.randn(4, 1, 8, 8), 1e-5)
        assert prefix is not None
        inputs = torch.randn(5, 1, 8, 8)
        with evaluating(network), torch.no_grad():
            assert torch.equal(
                AfterPrefix(network, prefix)(as_inputs(inputs, outputs_of(network, prefix, inputs))), network(inputs)
            )


def test_another_weight_is_another_prefix() -> None:
    network = tiny_network("bert")
    blocks = [block for block in network.blocks() if block.part == "backbone"][:2]
    prefix = cut(network, blocks, make_inputs("bert", 4, length=9), 1e-5)
    assert prefix is not None
    first = prefix.fingerprint(network)
    with torch.no_grad():
        network.blocks()[-1].module.weight.add_(1)
    assert prefix.fingerprint(network) == first  # the head is no part of it
    with torch.no_grad():
        next(blocks[1].module.parameters()).view(-1)[0] += 1e-3
    assert prefix.fingerprint(network) != first


FORMS = [
    Form(shape=(2,), dtype=torch.float32, by_token=True),
    Form(shape=(3,), dtype=torch.bfloat16, by_token=False),
]
STARTS = torch.tensor([0, 2, 3, 7])


def parts() -> list[tuple[Tensor, list[Tensor]]]:
    tokens = torch.arange(3 * 4 * 2, dtype=torch.float32).reshape(3, 4, 2)
    return [
        (torch.tensor([2]), [tokens[2:], torch.full((1, 3), 2, dtype=torch.bfloat16)]),
        (torch.tensor([0, 1]), [tokens[:2, :2], torch.tensor([[0] * 3, [1] * 3], dtype=torch.bfloat16)]),
    ]


def test_what_is_kept_comes_back(own_cache: Path) -> None:
    assert find_kept("k", FORMS, STARTS, 3) is None
    made = keep("k", FORMS, STARTS, 3, parts())
    for found in (made, find_kept("k", FORMS, STARTS, 3)):
        assert found is not None and isinstance(found[0], Ragged) and isinstance(found[1], Tensor)
        assert found[0].values[2].tolist() == [8, 9] and found[0].values[3].tolist() == [16, 17]
        assert found[1][:, 0].tolist() == [0, 1, 2]


def test_a_damaged_set_is_made_anew_and_an_interrupted_one_leaves_nothing(own_cache: Path) -> None:
    keep("k", FORMS, STARTS, 3, parts())
    file = own_cache / "frozen" / "k" / "0.bin"
    file.write_bytes(file.read_bytes()[:-4])
    assert find_kept("k", FORMS, STARTS, 3) is None

    def broken() -> Any:
        yield parts()[0]
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        keep("other", FORMS, STARTS, 3, broken())
    assert [folder.name for folder in (own_cache / "frozen").iterdir()] == ["k"]


def test_the_oldest_sets_go_when_room_is_needed(own_cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    one = kept.kept_bytes(FORMS, 3, 7)
    monkeypatch.setattr(kept, "MOST_BYTES", 2 * one)
    for name in ("a", "b"):
        keep(name, FORMS, STARTS, 3, parts())
    import os

    os.utime(own_cache / "frozen" / "a", (1, 1))
    find_kept("a", FORMS, STARTS, 3)  # used again, so b is the oldest now
    os.utime(own_cache / "frozen" / "b", (2, 2))
    keep("c", FORMS, STARTS, 3, parts())
    left = {folder.name for folder in (own_cache / "frozen").iterdir()}
    assert "c" in left and "b" not in left
    monkeypatch.setattr(kept, "MOST_BYTES", one - 1)
    assert keep("d", FORMS, STARTS, 3, parts()) is None


def test_the_content_hash_sees_inputs_and_no_targets() -> None:
    rows, target = torch.arange(2), torch.tensor([0, 1])
    pictures = torch.rand(2, 1, 3, 3)
    assert content_hash(TensorExamples(pictures, target, rows)) == content_hash(
        TensorExamples(pictures, None, rows + 1)
    )
    assert content_hash(TensorExamples(pictures, target, rows)) != content_hash(
        TensorExamples(pictures + 1, target, rows)
    )
    tokens = Ragged(torch.arange(5), torch.tensor([0, 2, 5]))
    other = Ragged(torch.arange(5), torch.tensor([0, 3, 5]))
    texts = [TokenExamples(part, None, target, rows, 0) for part in (tokens, other)]
    assert content_hash(texts[0]) != content_hash(texts[1])


def recipe(folder: Path, tmp_path: Path, **changes: Any) -> dict[str, Any]:
    given: dict[str, Any] = {
        "task": "text-classification",
        "data": {"source": str(texts(tmp_path / "texts.jsonl"))},
        "model": {"backbone": str(folder)},
        "tune": {"freeze": "backbone"},
        "train": {"epochs": 3, "lr": 1e-2, "batch_size": 8},
        "eval": {"resamples": 100},
    }
    return {**given, **changes}


@pytest.mark.parametrize("freeze", ["backbone", 3])
def test_a_run_ends_the_same_with_and_without(
    tmp_path: Path, own_cache: Path, monkeypatch: pytest.MonkeyPatch, freeze: Any
) -> None:
    monkeypatch.setattr(prefix_stage, "WORTH", 0.0)
    folder = tiny_bert(tmp_path / "bert")
    given = recipe(folder, tmp_path, tune={"freeze": freeze})
    found = {
        keeps: run(
            {**given, "hardware": {"prefix_cache": keeps, "precision": "float32"}},
            runs=tmp_path / "runs",
            console=silent(),
        )
        for keeps in (True, False)
    }
    summaries = {keeps: result.stages["finetune"].summary for keeps, result in found.items()}
    assert [summaries[keeps]["training"]["feature_cache"] for keeps in (True, False)] == [True, False]
    assert summaries[True]["evaluation"]["metrics"]["accuracy"] == summaries[False]["evaluation"]["metrics"]["accuracy"]
    assert all(summary["certificate"]["passed"] for summary in summaries.values())
    outputs = [read_predictions(result.stages["finetune"].folder).outputs for result in found.values()]
    assert np.allclose(*outputs, atol=1e-5)
    sets = {path.name: path.stat().st_mtime for path in (own_cache / "frozen").iterdir()}
    assert len(sets) == 2  # training and validation
    again = {**given, "hardware": {"prefix_cache": True, "precision": "float32"}}
    monkeypatch.setattr(prefix_stage, "keep", None)  # nothing is computed anew, for other heads and seeds either
    again["model"] = {**given["model"], "head": [{"dense": 8, "activation": "relu"}, {"dense": "auto"}]}
    assert run(again, runs=tmp_path / "runs", console=silent()).stages["finetune"].summary["training"]["feature_cache"]


def test_augmented_or_thawing_networks_are_computed_each_time(
    tmp_path: Path, own_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(prefix_stage, "WORTH", 0.0)
    folder = tiny_bert(tmp_path / "bert")
    thawing = {"freeze": "backbone", "unfreeze": [{"epoch": 2, "layers": "all"}]}
    for tune in (thawing, {"adapter": "lora"}, {"adapter": "bitfit"}):
        result = run(recipe(folder, tmp_path, tune=tune), runs=tmp_path / "runs", console=silent())
        assert not result.stages["finetune"].summary["training"]["feature_cache"], tune
    assert not (own_cache / "frozen").exists()
