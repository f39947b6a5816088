"""A gpt's weights one tensor at a time: the very numbers that a whole one has, from files or drawn; and the part of each process."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import LlamaConfig

from processes import FOLLOWED, started, weights
from small_recipes import RECIPES as CASES
from tunewright.console import silent
from tunewright.models.core.meta_weights import building_with, is_meta, use_fake_weights
from tunewright.models.hub.hf_network import Transformer, TransformerSpec, build_transformer
from tunewright.models.hub.purposes import CAUSAL_LM
from tunewright.models.hub.sharded_loading import draw, file_name, is_in_files, is_piecewise
from tunewright.pipeline.build.parts import build_parts
from tunewright.pipeline.build.prepare_data import prepare_data
from tunewright.pipeline.read_recipe import read_recipe
from tunewright.pipeline.stage import load_origin, recipe_backbone
from tunewright.run_recipe import run
from tunewright.runs.folder import read_json

# Where weights are compared: what is faster on this machine must not decide how they are rounded.
FLOAT32: dict[str, Any] = {"hardware": {"precision": "float32"}}


def network(*, tied: bool) -> TransformerSpec:
    config = LlamaConfig(
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        vocab_size=90,
        tie_word_embeddings=tied,
    )
    return TransformerSpec(purpose=CAUSAL_LM, config=config.to_dict(), head=None)


def without_numbers(spec: TransformerSpec) -> Transformer:
    with building_with("meta"):
        made = build_transformer(spec, seed=0)
    use_fake_weights(made)
    return made


@pytest.mark.parametrize("tied", [False, True])
def test_weights_are_drawn_as_whole_networks_draw_them(tied: bool) -> None:
    whole = build_transformer(network(tied=tied), seed=5)
    found: dict[str, Tensor] = {}
    draw(without_numbers(network(tied=tied)), 5, found.__setitem__)
    for name, value in whole.named_parameters():
        assert torch.equal(found[name], value)
    other: dict[str, Tensor] = {}
    draw(without_numbers(network(tied=tied)), 6, other.__setitem__)
    assert not torch.equal(found["model.lm_head.weight"], other["model.lm_head.weight"])


@pytest.mark.parametrize("tied", [False, True])
def test_files_that_lack_a_weight_or_have_another_shape_are_not_read_in_parts(tied: bool, tmp_path: Path) -> None:
    whole = build_transformer(network(tied=tied), seed=0)
    whole.core.save_pretrained(tmp_path)
    empty = without_numbers(network(tied=tied))
    names = {name for name, _ in empty.named_parameters()}
    assert is_piecewise(empty)
    assert is_in_files(empty, names, tmp_path)
    tensors = {file_name(whole, name): value.detach() for name, value in whole.named_parameters()}
    some = next(name for name in tensors if "q_proj" in name)
    for damaged in (
        {name: value for name, value in tensors.items() if name != some},
        {**tensors, some: tensors[some][:1].clone()},
    ):
        save_file(damaged, tmp_path / "model.safetensors")
        assert not is_in_files(empty, names, tmp_path)
        assert is_in_files(empty, names - {f"model.{some}"}, tmp_path)


def test_an_adapter_has_its_numbers_where_the_weights_below_have_none(tmp_path: Path) -> None:
    recipe = {
        "name": "writer",
        "train": {"epochs": 1, "batch_size": 4},
        **CASES["writer"](tmp_path),
        "stages": ["pretrain"],
    }
    model = run(recipe, base=tmp_path, runs=tmp_path / "runs", console=silent()).stages["pretrain"].folder / "model"
    adapted = {
        "task": "language-modeling",
        "data": recipe["data"],
        "model": {"weights": str(model)},
        "tune": {"adapter": {"lora": {"r": 2}}},
    }
    loaded = read_recipe(adapted, [], tmp_path)[0]
    prepared = prepare_data(loaded, tmp_path, silent())
    whole, parts = (
        build_parts(loaded, prepared, load_origin(model, kind), None, silent(), weights=kind).network
        for kind in ("pretrained", "sharded")
    )
    own = dict(parts.named_parameters())
    assert own.keys() == dict(whole.named_parameters()).keys()
    for name, value in whole.named_parameters():
        assert is_meta(own[name]) == ("lora" not in name)
        if "lora" in name:
            assert torch.equal(own[name], value)
    assert is_in_files(parts, {name for name in own if "lora" not in name}, model)


@pytest.mark.slow
def test_weights_in_bfloat16_are_read_in_parts_as_they_are_read_whole(tmp_path: Path) -> None:
    recipe = {"name": "writer", "train": {"epochs": 2, "batch_size": 4}, **FLOAT32, **CASES["writer"](tmp_path)}
    first = run({**recipe, "stages": ["pretrain"]}, base=tmp_path, runs=tmp_path / "first", console=silent())
    model = first.stages["pretrain"].folder / "model"
    path = model / "model.safetensors"
    save_file({name: value.bfloat16() for name, value in load_file(path).items()}, path, metadata={"format": "pt"})
    then = {**recipe, "model": {"weights": str(model)}, "train": {"epochs": 1, "batch_size": 4}, "stages": ["finetune"]}
    (tmp_path / "recipes.json").write_text(
        json.dumps([{**then, "hardware": {"strategy": "fsdp", **FLOAT32["hardware"]}}])
    )
    (tmp_path / "followed.py").write_text(FOLLOWED)
    processes = started(2, str(tmp_path / "followed.py"), str(tmp_path), "many", "parts")
    run(then, base=tmp_path, runs=tmp_path / "one", console=silent())
    assert [process.wait(200) for process in processes] == [0, 0]
    alone, many = (weights(tmp_path, runs, "writer", "finetune") for runs in ("one", "many"))
    assert alone.keys() == many.keys()
    for name, value in alone.items():
        assert many[name].dtype == torch.float32
        torch.testing.assert_close(many[name], value, rtol=1e-5, atol=1e-5, msg=name)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("size", "hardware", "stages"),
    [
        (
            2,
            {"strategy": "fsdp"},
            ["pretrain", {"finetune": {"tune": {"freeze": 1}}}, {"finetune": {"tune": {"adapter": {"lora": {}}}}}],
        ),
        (4, {"tensor": 2}, ["pretrain", {"finetune": {"tune": {"freeze": 1}}}]),
    ],
)
def test_a_network_that_is_whole_nowhere_learns_what_a_whole_one_does(
    size: int, hardware: dict[str, Any], stages: list[Any], tmp_path: Path
) -> None:
    case = CASES["writer"](tmp_path)
    gpt = {"gpt": {"layers": 2, "width": 32, "heads": 2, "tied": size == 2}}
    recipe = {
        "name": "writer",
        "train": {"epochs": 3, "batch_size": 4, "clip_norm": 0.5},
        **FLOAT32,
        **case,
        "model": {**case["model"], "backbone": gpt},
        "stages": stages,
    }
    (tmp_path / "recipes.json").write_text(json.dumps([{**recipe, "hardware": {**hardware, **FLOAT32["hardware"]}}]))
    (tmp_path / "followed.py").write_text(FOLLOWED)
    processes = started(size, str(tmp_path / "followed.py"), str(tmp_path), "many", "parts")
    run(recipe, base=tmp_path, runs=tmp_path / "one", console=silent())
    assert [process.wait(200) for process in processes] == [0] * size
    for folder in sorted(path.parent for path in (tmp_path / "one" / "writer").glob("*/summary.json")):
        alone, many = (weights(tmp_path, runs, "writer", folder.name) for runs in ("one", "many"))
        assert alone.keys() == many.keys()
        for name, value in alone.items():
            torch.testing.assert_close(many[name], value, rtol=1e-5, atol=1e-5, msg=f"{folder.name}: {name}")
        one, several = (
            read_json(tmp_path / runs / "writer" / folder.name / "summary.json", "a stage") for runs in ("one", "many")
        )
        assert several["certificate"] == one["certificate"]
        assert several["certificate"]["passed"]
        assert several["model"]["parameters"] == one["model"]["parameters"]
    assert len(list((tmp_path / "many" / "writer" / "pretrain" / "model").glob("model-*-of-*.safetensors"))) > 1


@pytest.mark.slow
def test_in_bfloat16_a_sharded_network_learns_the_same_up_to_rounding(tmp_path: Path) -> None:
    """Each product is rounded by up to half an epsilon, and parts of a batch are other products; so the trained differences, taken
    together, agree to about an epsilon (0.8 %), though a single weight may not."""
    recipe: dict[str, Any] = {
        "name": "writer",
        "train": {"epochs": 3, "batch_size": 4},
        "stages": ["pretrain"],
        "hardware": {"precision": "bfloat16"},
        **CASES["writer"](tmp_path),
    }
    shared = {**recipe, "hardware": {"precision": "bfloat16", "strategy": "fsdp"}}
    (tmp_path / "recipes.json").write_text(json.dumps([shared]))
    (tmp_path / "followed.py").write_text(FOLLOWED)
    processes = started(2, str(tmp_path / "followed.py"), str(tmp_path), "many", "parts")
    run(recipe, base=tmp_path, runs=tmp_path / "one", console=silent())
    assert [process.wait(200) for process in processes] == [0, 0]
    loaded = read_recipe(recipe, [], tmp_path)[0]
    prepared = prepare_data(loaded, tmp_path, silent())
    whole = build_parts(loaded, prepared, None, recipe_backbone(loaded, tmp_path), silent()).network
    begun = {file_name(whole, name): value.detach() for name, value in whole.named_parameters()}
    alone, many = (weights(tmp_path, runs, "writer", "pretrain") for runs in ("one", "many"))
    moved = sum(float((value - begun[name]).square().sum()) for name, value in alone.items())
    apart = sum(float((value - many[name]).square().sum()) for name, value in alone.items())
    assert (apart / moved) ** 0.5 < 2 * torch.finfo(torch.bfloat16).eps
