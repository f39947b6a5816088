"""Whole runs on pretrained networks: controls, the model card, adapters in stages."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from architectures import make_backbone
from fine_tuning import fine_tune, run_card_code
from tiny import texts, tiny_bert
from tunewright.errors import RecipeError
from tunewright.models.saved_model import load_network


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pretrained")
    tiny_bert(folder / "tiny", layers=2)
    (folder / "tiny" / "README.md").write_text("---\nlicense: apache-2.0\n---\n# Tiny\n")
    texts(folder / "texts.jsonl", 80)
    return folder


@pytest.mark.parametrize("tune", [{"freeze": "backbone"}, {"adapter": "lora"}])
def test_the_same_network_from_random_weights_is_a_control(place: Path, tune: dict[str, Any]) -> None:
    name = "control-" + "-".join(tune)
    result = fine_tune(place, name, tune=tune, eval={"resamples": 100, "controls": ["from_scratch"]})
    stage = result.stages["finetune"]
    (comparison,) = stage.summary["comparisons"]
    assert "random weights" in comparison["name"]
    control = stage.folder / "controls" / "from_scratch"
    facts = json.loads((control / "summary.json").read_text())
    assert facts["certificate"]["frozen"] == [] and facts["model"]["parameters"]["frozen"] == 0
    assert load_network(control / "model").network.spec.base is None
    assert stage.summary["model"]["parameters"]["frozen"] > 0


def test_the_head_alone_is_for_our_own_networks(place: Path) -> None:
    with pytest.raises(RecipeError, match="works with Tunewright's own networks") as caught:
        fine_tune(place, "head-only", eval={"controls": ["head_only"]})
    assert "eval.controls" in caught.value.message


def front_matter(model: Path) -> dict[str, Any]:
    return yaml.safe_load((model / "README.md").read_text().split("---")[1])


def test_the_card_of_a_whole_model_opens_it_with_transformers(place: Path) -> None:
    from huggingface_hub import ModelCard
    from huggingface_hub.repocard_data import model_index_to_eval_results

    stage = fine_tune(place, "whole").stages["finetune"]
    card = ModelCard.load(stage.folder / "model" / "README.md")
    facts = front_matter(stage.folder / "model")
    assert (facts["library_name"], facts["pipeline_tag"]) == ("transformers", "text-classification")
    assert card.data.license == "apache-2.0" and "base_model" not in facts
    name, results = model_index_to_eval_results(facts["model-index"])
    accuracy = stage.summary["evaluation"]["metrics"]["accuracy"]["value"]
    assert name and any(r.metric_type == "accuracy" and r.metric_value == accuracy for r in results)
    assert "AutoModelForSequenceClassification.from_pretrained" in card.text and "AutoTokenizer" in card.text
    run_card_code(card.text, stage.folder / "model")


def test_the_card_of_an_adapter_opens_it_with_peft(place: Path) -> None:
    stage = fine_tune(place, "adapter", tune={"adapter": {"lora": {"dora": True}}}).stages["finetune"]
    text = (stage.folder / "model" / "README.md").read_text()
    assert front_matter(stage.folder / "model")["library_name"] == "peft"
    assert "PeftModel.from_pretrained" in text and "id2label" in text
    run_card_code(text, stage.folder / "model")


def test_the_card_of_a_head_of_ones_own_opens_it_with_us(place: Path) -> None:
    stage = fine_tune(place, "own-head", model={"backbone": "tiny", "head": [{"dense": 8}, {"dense": "auto"}]}).stages[
        "finetune"
    ]
    text = (stage.folder / "model" / "README.md").read_text()
    assert front_matter(stage.folder / "model")["library_name"] == "tunewright"
    assert "head of its own" in text and "AutoModel" not in text
    run_card_code(text, stage.folder / "model")


@pytest.mark.parametrize("own", [False, True])
def test_adapters_and_full_training_after_one_another(place: Path, own: bool) -> None:
    """An adapter on what the stage before has learned; then its weights, worked in, go on."""
    first: dict[str, Any] = {"tune": {"freeze": 1}}
    if own:
        first["model"] = {"backbone": "tiny", "head": [{"dense": 8}, {"dense": "auto"}]}
    stages = [{"pretrain": first}, {"finetune": {"tune": {"adapter": "lora"}}}]
    if own:
        with pytest.raises(RecipeError, match="whole model in the library's own format"):
            fine_tune(place, "stages-own", stages=stages)
        return
    result = fine_tune(place, "stages", stages=stages)
    base = result.stages["pretrain"].folder / "model"
    saved = load_network(result.stages["finetune"].folder / "model").network
    assert saved.spec.base == str(base.resolve())
    run_card_code(
        (result.stages["finetune"].folder / "model" / "README.md").read_text(),
        result.stages["finetune"].folder / "model",
    )


def test_an_image_models_card(place: Path) -> None:
    make_backbone(place / "vit", "vit")
    stage = fine_tune(
        place,
        "image",
        task="image-classification",
        data={"source": "digits", "limit": 60},
        model={"backbone": "./vit"},
        tune={"adapter": "lora"},
        stages=["finetune"],
    ).stages["finetune"]
    text = (stage.folder / "model" / "README.md").read_text()
    assert "AutoModelForImageClassification" in text
    assert front_matter(stage.folder / "model")["pipeline_tag"] == "image-classification"
    run_card_code(text, stage.folder / "model")
