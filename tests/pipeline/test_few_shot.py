"""Few examples: a logistic regression on frozen features, written into an ordinary model; and contrastive pairs before."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression

from architectures import ARCHITECTURES, config_of, make_backbone, make_inputs, purpose_of
from tiny import texts, tiny_bert
from tunewright.console import silent
from tunewright.data.batches.examples import TensorExamples
from tunewright.errors import RecipeError
from tunewright.files import sha256_file
from tunewright.inference.model import load_model, predict
from tunewright.models.core.network import evaluating
from tunewright.models.core.tap import Tap
from tunewright.models.hub.hf_network import build_transformer, describe_transformer
from tunewright.models.saved_model import load_network
from tunewright.recipe.schema import Tune
from tunewright.run_recipe import run
from tunewright.tasks.registry import get_task
from tunewright.training.linear_probe import FOLDS, NEVER, fit_logistic, last_layer, write_layer
from tunewright.training.objectives.contrastive import ContrastiveLoss, PairExamples, pairs_an_epoch

SETTINGS = {"eval": {"resamples": 100}, "hardware": {"threads": 1, "precision": "float32"}}


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a tiny BERT and 80 reviews."""
    folder = tmp_path_factory.mktemp("few")
    tiny_bert(folder / "tiny", layers=1, initializer_range=0.2)
    texts(folder / "reviews.jsonl", 80)
    return folder


def recipe_for(**changes: Any) -> dict[str, Any]:
    recipe = {
        "name": "few",
        "task": "text-classification",
        "data": {"source": "reviews.jsonl"},
        "model": {"backbone": "tiny"},
        **SETTINGS,
    }
    return {**recipe, **changes}


def carry_out(place: Path, runs: Path, **changes: Any) -> Any:
    return run(recipe_for(**changes), base=place, runs=runs, console=silent())


@pytest.fixture(scope="module")
def done(place: Path, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """The run of a recipe that leaves `tune` out."""
    return carry_out(place, tmp_path_factory.mktemp("done"))


def test_few_examples_without_tune_are_solved_for_and_the_reason_is_said(done: Any) -> None:
    said = (done.folder / "log.txt").read_text()
    assert "31.5 examples a class, fewer than 64" in said and "tune: {freeze: none}" in said
    found = done.stages["finetune"].summary["training"]["few_shot"]
    assert found["method"] == "features" and not found["requested"] and found["examples_per_class"] == 31.5
    assert found["folds"] == 5 and found["strength"] in [score["strength"] for score in found["scores"]]
    best = min(found["scores"], key=lambda score: score["log_loss"])
    assert best["strength"] == found["strength"]


def test_the_backbone_stays_and_the_head_is_the_regressions(place: Path, done: Any) -> None:
    from transformers import AutoModelForSequenceClassification, AutoTokenizer, BertModel

    stage = done.stages["finetune"]
    before = BertModel.from_pretrained(place / "tiny").state_dict()
    opened = AutoModelForSequenceClassification.from_pretrained(stage.folder / "model").eval()
    for name, value in before.items():
        assert torch.equal(value, opened.bert.state_dict()[name]), name
    certificate = stage.summary["certificate"]
    assert certificate["passed"] and [entry["block"] for entry in certificate["trained"]] == ["head.classifier"]
    assert certificate["trained"][0]["unchanged"] == []
    tokenizer = AutoTokenizer.from_pretrained(stage.folder / "model")
    batch = tokenizer(["the film was good", "a very dull book"], padding=True, return_tensors="pt")
    with torch.no_grad():
        theirs = torch.softmax(opened(**batch).logits, 1).numpy()
    import pyarrow as pa

    ours = load_model(stage.folder / "model").predict(pa.table({"text": ["the film was good", "a very dull book"]}))
    for row, entry in zip(theirs, ours):
        assert list(entry["probabilities"].values()) == pytest.approx(row, abs=1e-5)
        assert list(entry["probabilities"]) == [opened.config.id2label[index] for index in range(2)]


def test_the_same_seed_gives_the_same_bits(place: Path, done: Any, tmp_path: Path) -> None:
    again = carry_out(place, tmp_path)
    files = [result.stages["finetune"].folder / "model" / "model.safetensors" for result in (done, again)]
    assert sha256_file(files[0]) == sha256_file(files[1])


def test_any_tune_asks_for_ordinary_training(place: Path, tmp_path: Path) -> None:
    for index, tune in enumerate(({"freeze": "none"}, {"method": "gradient"}, {"freeze": "backbone"})):
        result = carry_out(place, tmp_path, name=f"t{index}", tune=tune, train={"epochs": 1})
        training = result.stages["finetune"].summary["training"]
        assert "few_shot" not in training and training["epochs_run"] == 1


def test_the_summary_goes_into_the_report_and_the_card(done: Any) -> None:
    page = done.report.read_text()
    assert "31.5 examples per class" in page and "logistic regression" in page
    card = (done.stages["finetune"].folder / "model" / "README.md").read_text()
    assert "logistic regression" in card


# The regression itself.


def blobs(count: int, classes: int, width: int = 6, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    draw = np.random.default_rng(seed)
    target = np.arange(count) % classes
    return draw.normal(size=(count, width)) * 3 + 5 + draw.normal(size=(classes, width))[target] * 2, target


@pytest.mark.parametrize("classes", [2, 3])
def test_it_is_scikit_learns_optimum_in_the_features_own_units(classes: int) -> None:
    features, target = blobs(60, classes)
    fit = fit_logistic(features, target, classes, seed=0, weights=None, bias=True)
    size = np.sqrt(np.square(features - features.mean(0)).mean())
    model = LogisticRegression(C=fit.C, tol=1e-8, max_iter=5000).fit((features - features.mean(0)) / size, target)
    expected = model.predict_proba((features - features.mean(0)) / size)
    logits = torch.from_numpy(features @ fit.weight.T + fit.bias)
    assert np.allclose(torch.softmax(logits, 1).numpy(), expected, atol=1e-4)
    assert fit.folds == FOLDS and len(fit.scores) == 8


def test_the_strength_follows_the_data() -> None:
    draw = np.random.default_rng(0)
    noise = draw.normal(size=(40, 30))
    assert fit_logistic(noise, np.arange(40) % 2, 2, seed=0, weights=None, bias=True).C <= 1e-2
    features, target = blobs(200, 2)
    assert fit_logistic(features, target, 2, seed=0, weights=None, bias=True).C >= 1e-2


def test_classes_with_one_example_or_none() -> None:
    features, target = blobs(13, 3)
    target[target == 2] = 0
    target[0] = 2  # alone
    fit = fit_logistic(features, target, 4, seed=0, weights=None, bias=True)
    assert fit.folds == 4 and all(np.isfinite(score.log_loss) for score in fit.scores)
    assert fit.bias[3] == NEVER and not fit.weight[3].any() and fit.weight[2].any()
    every = fit_logistic(features[:3], np.array([0, 1, 2]), 3, seed=0, weights=None, bias=True)
    assert every.folds == 0 and every.C == 1 and every.scores == []


def test_class_weights_count() -> None:
    features, target = blobs(40, 2)
    even = fit_logistic(features, target, 2, seed=0, weights=None, bias=True)
    tilted = fit_logistic(features, target, 2, seed=0, weights=np.array([1.0, 20.0]), bias=True)
    chosen = [(features @ fit.weight.T + fit.bias).argmax(1).mean() for fit in (even, tilted)]
    assert chosen[1] > chosen[0]


def test_without_a_bias_nothing_is_centred() -> None:
    features, target = blobs(40, 2)
    fit = fit_logistic(features, target, 2, seed=0, weights=None, bias=False)
    assert not fit.bias.any()


@pytest.mark.parametrize("kind", ARCHITECTURES)
def test_every_architecture_ends_with_the_layer_that_is_solved_for(kind: str) -> None:
    described = describe_transformer(purpose_of(kind), config_of(kind), head=None, classes=["a", "b", "c"])
    network = build_transformer(described, seed=1)
    inputs = make_inputs(kind, 6)
    name, layer = last_layer(network, inputs)
    assert f"{name}.weight" in dict(network.named_parameters()) and layer.out_features == 3
    with Tap(layer) as tap, evaluating(network), torch.no_grad():
        network(inputs)
        features = tap.taken().double().numpy()
        fit = fit_logistic(features, np.arange(6) % 3, 3, seed=0, weights=None, bias=layer.bias is not None)
        write_layer(layer, fit)
        assert np.allclose(network(inputs).numpy(), features @ fit.weight.T + fit.bias, atol=1e-4)


def test_pictures_too(tmp_path: Path) -> None:
    from transformers import AutoModelForImageClassification

    make_backbone(tmp_path / "resnet", "resnet")
    result = run(
        {
            "task": "image-classification",
            "data": {"source": "digits", "limit": 300},
            "model": {"backbone": "resnet"},
            **SETTINGS,
        },
        base=tmp_path,
        runs=tmp_path,
        console=silent(),
    )
    stage = next(iter(result.stages.values()))
    assert stage.summary["training"]["few_shot"]["method"] == "features"
    assert stage.summary["evaluation"]["metrics"]["accuracy"]["value"] > 0.4
    opened = AutoModelForImageClassification.from_pretrained(stage.folder / "model").eval()
    pictures = torch.rand(3, 3, 32, 32)
    with torch.no_grad():
        ours = load_network(stage.folder / "model").network.eval()(pictures)
        assert torch.allclose(opened(pixel_values=pictures).logits, ours, atol=1e-5)


# Pairs.


def pair_examples(classes: list[int], each: int = 3) -> PairExamples:
    examples = TensorExamples(torch.arange(len(classes))[:, None].float(), torch.tensor(classes), torch.arange(1, 99))
    return PairExamples(examples=examples, classes=np.array(classes), seed=4, each=each)


def test_each_example_is_paired_with_its_own_class_and_with_others() -> None:
    pairs = pair_examples([0, 0, 0, 1, 1, 2])
    assert len(pairs) == 6 * 2 * 3 and pairs.rows.tolist()[:7] == [1] * 6 + [2]
    ids = torch.arange(len(pairs))
    batch = pairs.batch(ids, 0)
    first, second = batch.pixels[:, 0].long().chunk(2)
    classes = torch.from_numpy(pairs.classes)
    same = classes[first] == classes[second]
    assert batch.target is not None and torch.equal(batch.target, same) and torch.equal(same, ids % 2 == 0)
    alone = first == 5
    assert torch.equal((first == second) & (ids % 2 == 0), alone & (ids % 2 == 0))  # only what is alone meets itself
    assert torch.equal(batch.pixels, pairs.batch(ids, 0).pixels)
    assert not torch.equal(batch.pixels, pairs.batch(ids, 1).pixels)
    some = pairs.batch(torch.tensor([7, 3]), 0)
    assert some.pixels[:, 0].tolist() == [first[7], first[3], second[7], second[3]]


def test_pairs_of_all_epochs_come_to_twenty() -> None:
    assert [pairs_an_epoch(epochs) for epochs in (1, 3, 10, 100)] == [20, 7, 2, 1]


def test_the_loss_is_the_squared_error_of_the_cosine() -> None:
    layer = torch.nn.Linear(2, 2)
    pairs = PairExamples(
        examples=TensorExamples(torch.tensor([[1.0, 0], [1, 1], [0, 2]]), None, torch.arange(1, 4)),
        classes=np.array([0, 0, 1]),
        seed=0,
        each=1,
    )
    objective = ContrastiveLoss(layer=layer)
    batch = pairs.batch(torch.tensor([0, 1]), 0)  # (0, 1), which are alike, and (0, 2)
    expected = (np.sqrt(0.5) - 1) ** 2 + 0.0
    assert objective.loss_sum(layer, batch, 0).item() == pytest.approx(expected, abs=1e-6)
    assert objective.weight(batch) == 2


CONTRASTIVE = {"tune": {"method": "contrastive"}, "train": {"epochs": 2, "checkpoint_steps": 5, "lr": 5e-3}}


def test_contrastive_pairs_move_the_encoder_and_part_the_classes(place: Path, tmp_path: Path) -> None:
    tiny_bert(
        tmp_path / "calm", layers=1, initializer_range=0.1, hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0
    )
    model = {"backbone": str(tmp_path / "calm")}
    result = carry_out(place, tmp_path, **CONTRASTIVE, model=model)
    stage = result.stages["finetune"]
    training = stage.summary["training"]
    assert training["few_shot"]["method"] == "contrastive" and training["few_shot"]["requested"]
    assert training["objective"] == "contrastive" and training["epochs_run"] == 2
    entries = [json.loads(line) for line in (stage.folder / "metrics.jsonl").read_text().splitlines()]
    losses = [entry["train_loss"] for entry in entries if entry["kind"] == "epoch"]
    assert losses[-1] < 0.7 * losses[0]
    assert training["few_shot"]["strength"] == 1 and training["few_shot"]["folds"] == 0
    assert "only flatter" in training["few_shot"]["notes"][0]
    assert stage.summary["certificate"]["passed"] and not stage.summary["certificate"]["warnings"]
    assert predict(stage.folder / "model", place / "reviews.jsonl")[0]["prediction"] in ("good", "bad")


def test_a_killed_contrastive_run_ends_with_the_same_bits(place: Path, tmp_path: Path) -> None:
    def start(runs: Path, kill_at: int | None) -> int:
        child = os.fork()
        if child:
            return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        try:
            from tunewright.training.objectives import contrastive as pairs

            real, calls = pairs.ContrastiveLoss.loss_sum, iter(range(10**9))

            def deadly(*arguments: Any) -> Any:
                if next(calls) == kill_at:
                    os.kill(os.getpid(), signal.SIGKILL)
                return real(*arguments)

            pairs.ContrastiveLoss.loss_sum = deadly  # type: ignore[method-assign]
            torch.set_num_threads(1)
            carry_out(place, runs, **CONTRASTIVE)
        finally:
            os._exit(0)

    model = Path("few") / "finetune" / "model" / "model.safetensors"
    assert start(tmp_path / "whole", None) == 0
    assert start(tmp_path / "killed", 23) == -signal.SIGKILL
    assert not (tmp_path / "killed" / model).exists()
    assert start(tmp_path / "killed", None) == 0
    assert "going on after step" in (tmp_path / "killed" / "few" / "log.txt").read_text()
    assert sha256_file(tmp_path / "whole" / model) == sha256_file(tmp_path / "killed" / model)


# What does not fit.


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"tune": {"method": "features", "adapter": "lora"}}, "tune.adapter"),
        ({"tune": {"method": "features", "freeze": "none"}}, "tune.freeze"),
        ({"tune": {"method": "contrastive", "adapter": "lora"}}, "tune.adapter"),
        ({"tune": {"method": "features"}, "model": {"backbone": "tiny", "weights": "random"}}, "nothing pretrained"),
        ({"tune": {"method": "features"}, "train": {"label_smoothing": 0.1}}, "label_smoothing"),
        ({"tune": {"method": "nearest"}}, "features"),
        ({"task": "text-regression", "data": {"source": "reviews.jsonl", "target": "n"}, "tune": {"method": "features"}}, "one class a row"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_a_users_mistake(place: Path, tmp_path: Path, changes: dict[str, Any], said: str) -> None:
    lines = [json.loads(line) for line in (place / "reviews.jsonl").read_text().splitlines()]
    numbered = [json.dumps({"text": line["text"], "n": len(line["text"])}) for line in lines]
    if changes.get("task"):
        (tmp_path / "n").mkdir()
        tiny_bert(tmp_path / "n" / "tiny")
        (tmp_path / "n" / "reviews.jsonl").write_text("\n".join(numbered))
        place = tmp_path / "n"
    with pytest.raises(RecipeError, match=said):
        carry_out(place, tmp_path, **changes)


def test_many_examples_are_trained_on_as_always(place: Path, tmp_path: Path) -> None:
    texts(tmp_path / "reviews.jsonl", 330)
    tiny_bert(tmp_path / "tiny")
    result = carry_out(tmp_path, tmp_path, train={"epochs": 1})
    assert "few_shot" not in result.stages["finetune"].summary["training"]


def test_a_network_of_ours_learns_from_the_features_of_the_stage_before(tmp_path: Path) -> None:
    result = run(
        {
            "task": "image-classification",
            "data": {"source": "digits", "limit": 600},
            "model": {"layers": ["flatten", {"dense": 32, "activation": "relu"}, {"dense": "auto"}]},
            "train": {"epochs": 4},
            "stages": ["pretrain", {"finetune": {"data": {"source": "digits"}, "tune": {"method": "features"}}}],
            **SETTINGS,
            "eval": {"resamples": 100, "controls": ["from_scratch"]},
        },
        runs=tmp_path,
        console=silent(),
    )
    first, second = (load_network(result.stages[name].folder / "model").network for name in ("pretrain", "finetune"))
    for (name, before), after in zip(first.state_dict().items(), second.state_dict().values()):
        assert torch.equal(before, after) == ("backbone" in name)
    accuracy = [result.stages[name].summary["evaluation"]["metrics"]["accuracy"]["value"] for name in result.stages]
    assert accuracy[1] > 0.85
    control = json.loads((result.stages["finetune"].folder / "controls" / "from_scratch" / "summary.json").read_text())
    assert control["certificate"]["frozen"] == [] and "few_shot" not in control["training"]


def test_the_methods_options_are_settled_in_one_place() -> None:
    from tunewright.pipeline.build.few_shot_default import settle_method

    task = get_task("text-classification")
    assert settle_method(Tune(freeze=2), task, pretrained=False) == Tune(freeze=2)
    assert settle_method(Tune(method="features"), task, pretrained=True).freeze == "backbone"
    assert settle_method(Tune(method="contrastive", freeze=1), task, pretrained=True).freeze == 1
