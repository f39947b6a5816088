"""Purposes: a head that nobody here has heard of is built, trained beside, saved and loaded from what its purpose says."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForQuestionAnswering, AutoModelForTokenClassification

from architectures import config_of, make_backbone, make_inputs
from tunewright.errors import ArtifactError
from tunewright.models.backbone import open_backbone, weights_folder
from tunewright.models.core.network import evaluating
from tunewright.models.hub.adapters import add_adapter
from tunewright.models.hub.hf_files import load_backbone
from tunewright.models.hub.hf_network import Transformer, build_transformer, describe_transformer
from tunewright.models.hub.purposes import PURPOSES, Purpose, read_purpose
from tunewright.models.saved_model import load_network, save_model
from tunewright.recipe.schema import Tune
from tunewright.training.freezing import never_moves, resolve_trainable

TAGS = Purpose(name="token-classification", auto_class="AutoModelForTokenClassification", adapter_type="TOKEN_CLS")
ANSWERS = Purpose(
    name="question-answering",
    auto_class="AutoModelForQuestionAnswering",
    outputs=("start_logits", "end_logits"),
    adapter_type="QUESTION_ANS",
)
NAMES = ["person", "place", "neither"]


def outputs_of(network: Transformer) -> Any:
    with evaluating(network), torch.no_grad():
        return network(make_inputs("bert"))


@pytest.mark.parametrize("head", [None, [{"dense": 8, "activation": "relu"}, {"dense": "auto"}]])
def test_a_purpose_of_ones_own_names_tokens_one_by_one(tmp_path: Path, head: list[Any] | None) -> None:
    spec = describe_transformer(TAGS, config_of("bert"), head=head, classes=NAMES)
    network = build_transformer(spec, seed=1)
    tokens = make_inputs("bert")["input_ids"].shape
    assert outputs_of(network).shape == (*tokens, len(NAMES))
    assert {block.part for block in network.blocks()} == {"backbone", "head"}
    still = [plan for plan in resolve_trainable(network, Tune(freeze="backbone")) if never_moves(plan)]
    assert {plan.block.part for plan in still} == {"backbone"}
    save_model(tmp_path / "model", network, {})
    again = load_network(tmp_path / "model").network
    assert isinstance(again, Transformer) and again.spec == network.spec and again.purpose == TAGS
    assert torch.equal(outputs_of(again), outputs_of(network))
    if head is None:  # and so does the library
        library = AutoModelForTokenClassification.from_pretrained(tmp_path / "model").eval()
        assert list(library.config.id2label.values()) == NAMES
        with torch.no_grad():
            assert torch.equal(library(**make_inputs("bert")).logits, outputs_of(network))


def test_a_head_with_two_outputs_gives_both_by_name(tmp_path: Path) -> None:
    spec = describe_transformer(ANSWERS, config_of("bert"), head=None, classes=["start", "end"])
    network = build_transformer(spec, seed=1)
    save_model(tmp_path / "model", network, {})
    library = AutoModelForQuestionAnswering.from_pretrained(tmp_path / "model").eval()
    with torch.no_grad():
        expected = library(**make_inputs("bert"))
    found = outputs_of(network)
    assert list(found) == ["start_logits", "end_logits"]
    assert torch.equal(found["start_logits"], expected.start_logits)
    assert torch.equal(found["end_logits"], expected.end_logits)


def test_an_adapter_says_to_peft_what_the_purpose_is(tmp_path: Path) -> None:
    backbone = open_backbone(str(make_backbone(tmp_path / "base", "bert")), Path("/"))
    spec = describe_transformer(TAGS, backbone.config, head=None, classes=NAMES)
    spec = replace(spec, base=backbone.name, base_fingerprint=backbone.fingerprint)
    loaded = load_backbone(weights_folder(backbone), spec, seed=1)
    assert loaded.new and all(name.startswith("classifier.") for name in loaded.new)
    adapted = add_adapter(loaded.network, "lora", seed=0)
    assert isinstance(adapted, Transformer)
    save_model(tmp_path / "model", adapted, {})
    assert json.loads((tmp_path / "model" / "adapter_config.json").read_text())["task_type"] == "TOKEN_CLS"
    again = load_network(tmp_path / "model").network
    assert isinstance(again, Transformer) and torch.equal(outputs_of(again), outputs_of(adapted))


@pytest.mark.parametrize("purpose", [*PURPOSES.values(), TAGS, ANSWERS], ids=lambda purpose: purpose.name)
def test_a_purpose_is_read_back_from_json(purpose: Purpose) -> None:
    assert read_purpose(json.loads(json.dumps(purpose.to_json()))) == purpose
    assert isinstance(purpose.to_json(), str) == (purpose.name in PURPOSES)


@pytest.mark.parametrize("name", ["AutoModel", "pipeline", "utils.import_utils", "AutoModelForX.from_pretrained"])
def test_no_other_class_of_the_library_is_looked_up(tmp_path: Path, name: str) -> None:
    with pytest.raises(ValueError, match="AutoModelFor"):
        Purpose(name="evil", auto_class=name)
    network = build_transformer(describe_transformer(TAGS, config_of("bert"), head=None, classes=NAMES), seed=1)
    save_model(tmp_path / "model", network, {})
    path = tmp_path / "model" / "tunewright.json"
    kept = json.loads(path.read_text())
    kept["network"]["purpose"]["auto_class"] = name
    path.write_text(json.dumps({key: value for key, value in kept.items() if key != "content_sha256"}))
    (tmp_path / "model" / "checksums.json").unlink()
    with pytest.raises(ArtifactError, match="damaged"):
        load_network(tmp_path / "model")
