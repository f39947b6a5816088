"""Pairs of texts, and numbers from texts: the whole life with a tiny BERT in the hub's format."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch

from tiny import WORDS, tiny_bert
from tunewright.commands.data import check_data
from tunewright.commands.init import write_recipe
from tunewright.commands.predict import print_predictions
from tunewright.console import silent
from tunewright.data.prepare.prepare import prepare
from tunewright.errors import DataError
from tunewright.inference.model import load_model, predict
from tunewright.models.saved_model import load_network
from tunewright.recipe.loading import recipe_from_dict
from tunewright.recipe.schema import Data
from tunewright.run_recipe import run
from tunewright.tasks.registry import TASKS, get_task, task_defaults

SETTINGS: dict[str, Any] = {
    "model": {"backbone": "tiny"},
    "tune": {"freeze": "none"},
    "eval": {"resamples": 100, "slices": ["source"]},
    "hardware": {"threads": 1, "precision": "float32"},
}


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a tiny BERT that tells two texts apart by token types, pairs of texts, and texts with a number."""
    folder = tmp_path_factory.mktemp("texts")
    tiny_bert(
        folder / "tiny", layers=1, initializer_range=0.2, hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0
    )
    settings = json.loads((folder / "tiny" / "tokenizer_config.json").read_text())
    settings["model_input_names"] = ["input_ids", "token_type_ids", "attention_mask"]
    (folder / "tiny" / "tokenizer_config.json").write_text(json.dumps(settings))
    draw = np.random.default_rng(0)
    pairs: list[str] = []
    numbers: list[str] = []
    for index in range(400):
        first, second = (" ".join(map(str, draw.choice(WORDS, int(draw.integers(1, 5))))) for _ in range(2))
        # Only the order of the two texts tells: the same words the other way round are the other class.
        good = draw.random() < 0.5
        first, second = (f"{first} good", f"{second} bad") if good else (f"{first} bad", f"{second} good")
        source = "web" if index % 4 else "print"
        pairs.append(json.dumps({"first": first, "second": second, "source": source, "label": "yes" if good else "no"}))
        score = 100 + 10.0 * (f"{first} {second}".split().count("the"))
        numbers.append(json.dumps({"first": first, "second": second, "source": source, "score": score}))
    (folder / "pairs.jsonl").write_text("\n".join(pairs))
    (folder / "numbers.jsonl").write_text("\n".join(numbers))
    return folder


@pytest.fixture(scope="module")
def paired(place: Path, tmp_path_factory: pytest.TempPathFactory) -> Any:
    recipe = {
        **SETTINGS,
        "name": "pairs",
        "task": "text-classification",
        "data": {"source": "pairs.jsonl", "input": ["first", "second"]},
        "train": {"epochs": 5, "lr": 3e-3, "batch_size": 16},
    }
    return run(recipe, base=place, runs=tmp_path_factory.mktemp("runs"), console=silent())


@pytest.fixture(scope="module")
def numbered(place: Path, tmp_path_factory: pytest.TempPathFactory) -> Any:
    recipe = {
        **SETTINGS,
        "name": "numbers",
        "task": "text-regression",
        "data": {"source": "numbers.jsonl", "input": ["first", "second"], "target": "score"},
        "train": {"epochs": 6, "lr": 3e-3, "batch_size": 16},
    }
    return run(recipe, base=place, runs=tmp_path_factory.mktemp("runs"), console=silent())


def test_which_text_is_which_is_learned(paired: Any) -> None:
    evaluation = paired.stages["finetune"].summary["evaluation"]
    assert evaluation["metrics"]["accuracy"]["value"] > 0.8
    linear = evaluation["baselines"][-1]
    assert linear["name"] == "linear model on character n-grams"
    assert {entry["value"] for entry in evaluation["slices"]} == {"web", "print"}
    assert paired.stages["finetune"].summary["certificate"]["passed"]


def test_token_types_tell_the_texts_apart(place: Path) -> None:
    from tunewright.models.backbone import open_backbone
    from tunewright.tasks.text.encoder import fit_tokens, load_tokens

    recipe = recipe_from_dict(
        {"task": "text-classification", "data": {"source": "pairs.jsonl", "input": ["first", "second"]}},
        defaults=task_defaults,
    )
    prepared = prepare(recipe.data, seed=0, target_kind="category", base=place)
    encoder = fit_tokens(prepared, recipe, open_backbone("tiny", place), None)
    table = pa.table({"first": ["the film", "a"], "second": ["good", "very dull plot"], "_row": [1, 2]})
    batch = encoder.examples(table, None).batch(torch.tensor([0, 1]))
    assert isinstance(batch.inputs, dict)
    # [CLS] the film [SEP] good [SEP], and [CLS] a [SEP] very dull plot [SEP]
    assert batch.inputs["token_type_ids"].tolist() == [[0, 0, 0, 0, 1, 1, 0], [0, 0, 0, 1, 1, 1, 1]]
    assert batch.inputs["attention_mask"].sum(1).tolist() == [6, 7]
    encoder.write(place / "written")
    again = load_tokens(encoder.to_json(), place / "written").examples(table, None).batch(torch.tensor([0, 1]))
    assert isinstance(again.inputs, dict)
    assert all(torch.equal(again.inputs[name], value) for name, value in batch.inputs.items())


def test_a_saved_pair_model_predicts_as_transformers_does(place: Path, paired: Any) -> None:
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    folder = paired.stages["finetune"].folder / "model"
    opened, tokenizer = (
        AutoModelForSequenceClassification.from_pretrained(folder).eval(),
        AutoTokenizer.from_pretrained(folder),
    )
    assert opened.config.id2label == {0: "no", 1: "yes"}
    assert opened.config.problem_type == "single_label_classification"
    firsts, seconds = ["the good", "a bad"], ["the bad", "a good"]
    with torch.no_grad():
        logits = opened(**tokenizer(firsts, seconds, padding=True, return_tensors="pt")).logits
    ours = load_model(folder).predict(pa.table({"first": firsts, "second": seconds}))
    assert [entry["prediction"] for entry in ours] == ["yes", "no"]
    for row, entry in zip(torch.softmax(logits, 1).tolist(), ours):
        assert list(entry["probabilities"].values()) == pytest.approx(row, abs=1e-5)
    assert [entry["row"] for entry in predict(folder, place / "pairs.jsonl")][:3] == [1, 2, 3]
    with pytest.raises(DataError, match="no column 'second'"):
        load_model(folder).predict(pa.table({"first": firsts}))


def test_mistakes_show_both_texts(place: Path, tmp_path: Path) -> None:
    result = run(
        {
            **SETTINGS,
            "task": "text-classification",
            "data": {"source": "pairs.jsonl", "input": ["first", "second"]},
            "tune": {"freeze": "backbone"},
            "train": {"epochs": 1},
        },
        base=place,
        runs=tmp_path,
        console=silent(),
    )
    mistakes = result.stages["finetune"].summary["evaluation"]["mistakes"]
    assert mistakes and all(set(entry["input"]) == {"first", "second"} for entry in mistakes)
    page = result.report.read_text()
    assert all(text in page for text in mistakes[0]["input"].values())


def test_a_number_is_learned_in_its_own_unit(place: Path, numbered: Any, capsys: pytest.CaptureFixture[str]) -> None:
    summary = numbered.stages["finetune"].summary
    evaluation = summary["evaluation"]
    metrics = {name: entry["value"] for name, entry in evaluation["metrics"].items()}
    baselines = {entry["name"].split(" (")[0]: entry["metrics"]["rmse"]["value"] for entry in evaluation["baselines"]}
    assert list(metrics) == ["rmse", "mae", "r2"] and metrics["r2"] > 0.8
    assert metrics["rmse"] < baselines["mean"] and "median" in baselines and len(baselines) == 3
    assert all(entry["target"] > 99 and set(entry["input"]) == {"first", "second"} for entry in evaluation["mistakes"])
    folder = numbered.stages["finetune"].folder / "model"
    print_predictions(folder, str(place / "numbers.jsonl"))
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines() if line.startswith("{")]
    assert len(lines) == 400 and all(90 < line["prediction"] < 160 for line in lines)


def test_a_number_model_opens_in_transformers_as_a_regression(numbered: Any) -> None:
    from transformers import AutoModelForSequenceClassification

    folder = numbered.stages["finetune"].folder / "model"
    opened = AutoModelForSequenceClassification.from_pretrained(folder)
    assert opened.config.num_labels == 1 and opened.config.problem_type == "regression"
    assert load_network(folder).network.spec.config["id2label"] == {"0": "value"}


def test_the_checks_read_pairs_and_numbers(place: Path) -> None:
    for name, source, target in (("text-classification", "pairs", "label"), ("text-regression", "numbers", "score")):
        path = place / f"{source}.yaml"
        path.write_text(
            f"task: {name}\ndata: {{source: {source}.jsonl, input: [first, second], target: {target}}}\nmodel: {{backbone: tiny}}\n"
        )
        check_data(path, [], as_json=False, console=silent())


def test_words_are_no_numbers_and_three_texts_no_pair(place: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="does not hold numbers"):
        prepare(Data(source="pairs.jsonl"), seed=0, target_kind="number", base=place)
    recipe = {
        **SETTINGS,
        "task": "text-classification",
        "data": {"source": "pairs.jsonl", "input": ["first", "second", "source"]},
    }
    with pytest.raises(DataError, match="one column of text, or two"):
        run(recipe, base=place, runs=tmp_path, console=silent())


@pytest.mark.parametrize("task", ["text-classification", "text-regression"])
def test_init_writes_a_recipe_that_fits_a_pretrained_backbone(place: Path, tmp_path: Path, task: str) -> None:
    from tunewright.recipe.loading import load_recipe

    source = place / ("pairs.jsonl" if task == "text-classification" else "numbers.jsonl")
    write_recipe(task, str(source), tmp_path / "mine.yaml")
    recipe = load_recipe(tmp_path / "mine.yaml", defaults=task_defaults)
    assert recipe.stages == ["finetune"] and recipe.train.optimizer == "adamw" and recipe.train.schedule == "linear"
    assert recipe.tune.model_fields_set == set()


def test_every_task_says_what_a_prediction_is() -> None:
    kinds = {get_task(name).kind for name in TASKS}
    assert kinds == {
        "classification",
        "multilabel",
        "regression",
        "entities",
        "tokens",
        "next_tokens",
        "answers",
        "preferences",
        "ranking",
        "transcripts",
    }
