"""Choosing a model to start from: the scores' known values, how they are joined, and the verb on real data."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch
from sklearn.datasets import load_iris

import tunewright
from repository import REPOSITORY
from small_recipes import RECIPES
from tiny import tiny_bert
from tunewright.commands.choose import ChooseSettings, choose
from tunewright.console import silent
from tunewright.errors import RecipeError
from tunewright.evaluation.rank_scores import combined, standardised, weighted_tau
from tunewright.evaluation.transferability import h_score, leep, logme, nearest, one_hot
from tunewright.models.backbone import open_backbone
from tunewright.models.core.layer_features import layer_means
from tunewright.models.hub.hf_network import build_transformer, describe_transformer
from tunewright.models.hub.model_facts import PUBLISHED
from tunewright.models.hub.purposes import TEXT_CLASSIFICATION
from tunewright.pipeline.build.prepare_data import prepare_data
from tunewright.pipeline.stage import StageJob, load_origin
from tunewright.recipe.loading import load_recipe
from tunewright.recipe.stages import stage_recipes
from tunewright.selection.candidates import past_scores
from tunewright.selection.probing import average_layers, make_folds, paired_outcomes
from tunewright.tasks.language_model.chat_evaluation import answers_by_byte
from tunewright.tasks.registry import TASKS, task_defaults

IRIS, KIND = load_iris(return_X_y=True)


def test_scores_of_iris_are_the_known_ones() -> None:
    # The converged LogME differs from the published run, which stops earlier, in the eighth digit.
    assert logme(IRIS, one_hot(KIND)) == pytest.approx(-0.16006022, abs=5e-8)
    assert h_score(IRIS, KIND) == pytest.approx(1.17784248, abs=5e-8)
    for k, accuracy in {1: 0.96, 3: 0.96, 5: 0.96667, 13: 0.96667}.items():
        found = nearest(IRIS, one_hot(KIND), k).argmax(1)
        assert (found == KIND).mean() == pytest.approx(accuracy, abs=5e-6)


def test_logme_is_the_greatest_evidence() -> None:
    """By another way: the evidence of the dense formula, maximised numerically."""
    from scipy.optimize import minimize

    def evidence(logs: np.ndarray, target: np.ndarray) -> float:
        alpha, beta = np.exp(logs)
        count, width = IRIS.shape
        precision = alpha * np.eye(width) + beta * IRIS.T @ IRIS
        mean = beta * np.linalg.solve(precision, IRIS.T @ target)
        error = beta * np.square(IRIS @ mean - target).sum() + alpha * mean @ mean
        volume = width * logs[0] + count * logs[1] - np.linalg.slogdet(precision)[1]
        return (volume - error - count * np.log(2 * np.pi)) / (2 * count)

    exact = {"xatol": 1e-9, "fatol": 1e-13}
    best = [
        minimize(lambda logs, row=row: -evidence(logs, row), [0.0, 1.0], method="Nelder-Mead", options=exact).fun
        for row in one_hot(KIND).T
    ]
    assert logme(IRIS, one_hot(KIND)) == pytest.approx(-np.mean(best), abs=1e-10)


def test_logme_does_not_grow_with_width() -> None:
    rng = np.random.default_rng(0)
    target = one_hot(rng.integers(0, 2, 100))
    noise = rng.normal(size=(100, 1024))
    found = [logme(noise[:, :width], target) for width in (32, 64, 128, 256, 512, 1024)]
    assert max(found) - min(found) < 0.02 and found[-1] <= found[0] + 0.01


def test_leep_of_a_model_that_knows_the_classes_and_of_one_that_knows_nothing() -> None:
    sure = np.eye(3)[KIND]
    assert leep(sure, KIND) == pytest.approx(0.0, abs=1e-12)
    assert leep(sure[:, [2, 0, 1]], KIND) == pytest.approx(0.0, abs=1e-12)  # by other names
    assert leep(np.full((150, 4), 0.25), KIND) == pytest.approx(np.log(1 / 3))


def test_scores_are_joined_and_a_missing_one_is_neutral() -> None:
    assert standardised([1.0, 1.0, 1.0]).tolist() == [0.0, 0.0, 0.0]
    assert standardised([0.0, None, 2.0]).tolist() == [-1.0, 0.0, 1.0]
    scores = {"probe": [0.5, 0.7, None], "logme": [-1.0, 1.0, 0.0], "h_score": [9.0, 0.0, 0.0]}
    assert combined(scores) == pytest.approx([(-1 - 1.5**0.5) / 2, (1 + 1.5**0.5) / 2, 0.0])
    assert combined(scores, {"h_score": 2.0}).argmax() == 0
    # A fine-tune alone counts; the others break its ties, and who has none stands behind.
    assert combined({**scores, "tuned": [0.8, 0.8, 0.9]}).argsort().tolist() == [0, 1, 2]
    assert combined({**scores, "tuned": [0.8, None, 0.1]}).argsort().tolist() == [1, 2, 0]
    assert combined({**scores, "tuned": [None] * 3}).tolist() == combined(scores).tolist()


def test_weighted_tau_counts_the_best_most() -> None:
    reached = [0.9, 0.8, 0.7, 0.6]
    assert weighted_tau(reached, reached) == pytest.approx(1) and weighted_tau(reached[::-1], reached) == pytest.approx(
        -1
    )
    assert weighted_tau([0.8, 0.9, 0.7, 0.6], reached) < weighted_tau([0.9, 0.8, 0.6, 0.7], reached)


def test_the_documents_say_what_the_benchmark_found() -> None:
    place = REPOSITORY
    mean = json.loads((place / "benchmarks" / "results" / "choose_backbones.json").read_text())["mean"]
    text = (place / "docs" / "choosing.md").read_text(encoding="utf-8")
    for name in ("choose", "choose --tune", "learned", "logme", "prior", "other seed"):
        assert f"{mean[name]:.2f}" in text


def test_averaged_features_have_the_mean_of_the_layers_inner_products() -> None:
    rng = np.random.default_rng(0)
    layers = [rng.normal(size=(20, 7)), 100 * rng.normal(size=(20, 50)) + 3, np.ones((20, 4))]
    found = average_layers(layers)
    centred = [layer - layer.mean(0) for layer in layers[:2]]
    mean = sum(layer @ layer.T / np.square(layer).sum(1).mean() for layer in centred) / 3
    assert np.allclose(found @ found.T, mean, atol=1e-8)
    assert found.shape[1] <= 20


def test_padding_has_no_part_in_a_texts_features(tmp_path: Path) -> None:
    backbone = open_backbone(str(tiny_bert(tmp_path / "bert")), tmp_path)
    described = describe_transformer(TEXT_CLASSIFICATION, backbone.config, head=None, classes=["a", "b"])
    network = build_transformer(described, seed=0).eval()
    short = {"input_ids": torch.tensor([[2, 6, 9, 3]]), "attention_mask": torch.ones(1, 4, dtype=torch.int64)}
    long = {
        "input_ids": torch.tensor([[2, 6, 9, 3, 0, 0]]),
        "attention_mask": torch.tensor([[1, 1, 1, 1, 0, 0]]),
    }
    for a, b in zip(layer_means(network, short), layer_means(network, long)):
        assert torch.allclose(a, b, atol=1e-5)


def test_published_facts_belong_to_tasks_and_scores_have_sources() -> None:
    for name, facts in PUBLISHED.items():
        assert facts.task in TASKS, name
        assert (facts.score is None) == (facts.measure is None) == (facts.source == ""), name


def write(folder: Path, **changes: Any) -> Path:
    recipe = {
        "task": "image-classification",
        "data": {"source": "digits", "limit": 500},
        "model": {"layers": ["flatten", {"dense": 32, "activation": "relu"}, {"dense": "auto"}]},
        "train": {"epochs": 3},
        **changes,
    }
    path = folder / "recipe.yaml"
    path.write_text(json.dumps(recipe))
    return path


@pytest.fixture
def pretrained(tmp_path: Path) -> dict[str, str]:
    """Two models of digits: one that has learned them, one that was kept from learning."""
    found: dict[str, str] = {}
    for name, train in {"good": {"epochs": 30}, "poor": {"epochs": 1, "lr": 1e-6}}.items():
        recipe = json.loads(write(tmp_path).read_text()) | {"train": train, "name": name}
        tunewright.run(recipe, runs=tmp_path / "runs", console=silent())
        found[name] = str(tmp_path / "runs" / name / "pretrain" / "model")
    return found


def test_the_verb_ranks_models_and_says_what_it_does_not_know(
    tmp_path: Path, pretrained: dict[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    recipe = write(tmp_path, stages=["finetune"])
    names = [pretrained["poor"], "resnet20", pretrained["good"]]
    ranked = choose(recipe, [], ChooseSettings(names=names, sample=200, runs=tmp_path / "none", planned=False))
    assert ranked[0].candidate.name == pretrained["good"]
    assert ranked[0].against_first is None and ranked[-1].against_first is not None
    best, random = ranked[0].measured, next(one.measured for one in ranked if one.candidate.name == "resnet20")
    assert best is not None and random is not None
    assert best.leep is not None and random.leep is None
    assert best.probe.low < best.probe.value < best.probe.high
    assert "not a result" in capsys.readouterr().out
    choose(recipe, [], ChooseSettings(names=names[:1], sample=50, runs=tmp_path / "none", planned=False), as_json=True)
    (entry,) = json.loads(capsys.readouterr().out)
    assert entry["name"] == names[0] and entry["prior"] is None


def test_the_same_model_twice_cannot_be_told_apart(tmp_path: Path, pretrained: dict[str, str]) -> None:
    import shutil

    twin = shutil.copytree(pretrained["good"], tmp_path / "twin")
    recipe = write(tmp_path, stages=["finetune"])
    ranked = choose(
        recipe,
        [],
        ChooseSettings(names=[pretrained["good"], str(twin)], runs=tmp_path, planned=False),
        console=silent(),
    )
    assert ranked[1].against_first is not None and ranked[1].against_first.verdict == "no real difference"
    assert ranked[0].score == ranked[1].score


def test_past_runs_on_the_same_data_become_the_prior(tmp_path: Path, pretrained: dict[str, str]) -> None:
    assert past_scores(tmp_path / "runs", "image-classification") == {}  # both began with layers: one name
    for name in pretrained:
        recipe = json.loads(write(tmp_path, stages=["finetune"]).read_text())
        recipe |= {"model": {"weights": pretrained[name]}, "train": {"epochs": 1}, "name": f"tuned-{name}"}
        tunewright.run(recipe, runs=tmp_path / "runs", base=tmp_path, console=silent())
    past = past_scores(tmp_path / "runs", "image-classification")
    assert past[str(Path(pretrained["good"]).resolve())] > 0 > past[str(Path(pretrained["poor"]).resolve())]
    recipe = write(tmp_path, stages=["finetune"])
    ranked = choose(
        recipe,
        [],
        ChooseSettings(names=[*pretrained.values()], sample=50, runs=tmp_path / "runs", planned=False),
        console=silent(),
    )
    assert {entry.candidate.name: (entry.prior or 0) > 0 for entry in ranked} == {
        pretrained["good"]: True,
        pretrained["poor"]: False,
    }


def test_numbers_are_a_target_too(tmp_path: Path) -> None:
    data = {"source": "diabetes"}
    layers = {"layers": [{"dense": 16, "activation": "relu"}, {"dense": "auto"}]}
    recipe = {"task": "tabular-regression", "data": data, "model": layers, "train": {"epochs": 2}, "name": "first"}
    tunewright.run(recipe, runs=tmp_path / "runs", console=silent())
    path = tmp_path / "recipe.yaml"
    path.write_text(json.dumps({**recipe, "stages": ["finetune"]}))
    model = str(tmp_path / "runs" / "first" / "pretrain" / "model")
    (entry,) = choose(path, [], ChooseSettings(names=[model], runs=tmp_path / "none", planned=False), console=silent())
    assert entry.measured is not None and entry.measured.h_score is None
    assert 30 < (entry.measured.probe.value or 0) < 90  # the spread of the target is 77


def test_a_short_fine_tune_tells_most(
    tmp_path: Path, pretrained: dict[str, str], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two thirds of the rows teach, a third is foretold, three times; nothing of it stays, and a validation split has no part in it."""
    recipe = write(tmp_path, stages=["finetune"], train={"epochs": 8, "early_stopping": {"patience": 1}})
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(temporary))
    names = [*pretrained.values(), "resnet20"]
    found = [
        choose(recipe, [], ChooseSettings(names=names, sample=90, tune=True, runs=tmp_path / "none", planned=False))
        for _ in range(2)
    ]
    ranked = found[0]
    assert ranked[0].candidate.name == pretrained["good"]
    for entry, again in zip(*found):
        assert entry.measured is not None and again.measured is not None
        assert entry.measured.tuned is not None and again.measured.tuned is not None
        (outcome, estimate), (same, _) = entry.measured.tuned, again.measured.tuned
        assert len(outcome) == 90 and estimate.low < estimate.value < estimate.high  # pyright: ignore
        assert np.array_equal(outcome.outputs, same.outputs)
        assert entry.to_json()["tuned"]["value"] == estimate.value
    first, second = ranked[0].measured, ranked[1].measured
    assert first is not None and second is not None
    assert np.array_equal(paired_outcomes(first, second)[0].target, paired_outcomes(first, second)[1].target)
    assert not list(temporary.iterdir())
    shown = capsys.readouterr().out
    assert "accuracy, fine-tuned" in shown and "few rows" in shown


def test_groups_stay_together_while_candidates_are_fine_tuned(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    lines = [f"{rng.normal():.3f},{rng.normal():.3f},{'ab'[k % 2]},p{k // 4}" for k in range(400)]
    (tmp_path / "rows.csv").write_text("\n".join(["x,y,label,patient", *lines]))
    data = {"source": "rows.csv", "target": "label", "split": {"test": 0.2, "by": "group", "column": "patient"}}
    job, table = folded(tmp_path, {"task": "tabular-classification", "data": data})
    patients = np.array(table["patient"].to_pylist())
    folds = make_folds(job, table)
    assert sorted(np.concatenate([held for _, held in folds])) == list(range(table.num_rows))
    for learned, held in folds:
        assert not {*patients[learned]} & {*patients[held]}
    with pytest.raises(RecipeError, match="into folds"):
        make_folds(job, table.slice(0, 4))  # of one patient
    data = {"source": "digits", "limit": 300}
    job, table = folded(tmp_path, {"task": "image-classification", "data": data})
    digits = np.array(table[job.prepared.manifest.target].to_pylist())
    for learned, held in make_folds(job, table):
        assert np.ptp([np.mean(digits[held] == digit) - np.mean(digits[learned] == digit) for digit in range(10)]) < 0.1


def folded(place: Path, recipe: dict[str, Any]) -> tuple[StageJob, pa.Table]:
    """A stage's job and its training rows."""
    path = place / "folded.yaml"
    path.write_text(json.dumps(recipe))
    stage = stage_recipes(load_recipe(path, [], defaults=task_defaults))[-1]
    prepared = prepare_data(stage.recipe, place, silent())
    return StageJob(stage=stage, folder=place, source=None, prepared=prepared, backbone=None), prepared.table("train")


@pytest.mark.parametrize(
    ("name", "metric"), [("writer", "bits_per_byte"), ("talk", "bits_per_byte"), ("deepspeech", "wer")]
)
def test_without_a_target_models_show_what_they_can_do(
    tmp_path: Path, name: str, metric: str, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe = {"eval": {"resamples": 100}, **RECIPES[name](tmp_path)}
    models: dict[str, str] = {}
    learned = 25 if metric == "wer" else 6
    for epochs, rate in ((1, 1e-7), (learned, 1e-2)):
        plain = {**recipe, "name": f"for-{epochs}", "train": {"epochs": epochs, "batch_size": 8, "lr": rate}}
        stage = next(
            iter(tunewright.run(plain, base=tmp_path, runs=tmp_path / "runs", console=silent()).stages.values())
        )
        models[str(stage.folder / "model")] = f"{epochs}"
    path = tmp_path / "recipe.yaml"
    path.write_text(json.dumps({**recipe, "stages": ["finetune"]}))
    ranked = choose(path, [], ChooseSettings(names=[*models], runs=tmp_path / "none", planned=False))
    first, second = (entry.measured for entry in ranked)
    assert first is not None and second is not None and first.logme is None
    assert models[ranked[0].candidate.name] == f"{learned}" and (first.probe.value or 0) < (second.probe.value or 0)
    shown = capsys.readouterr().out
    assert metric in shown and "zero-shot" in shown and "LogME" not in shown
    (tuned,) = choose(
        path,
        ["train.epochs=1"],
        ChooseSettings(names=[*models][:1], sample=30, tune=True, runs=tmp_path / "none", planned=False),
    )
    assert tuned.measured is not None and tuned.measured.tuned is not None
    assert len(tuned.measured.tuned[0]) == len(tuned.measured.outcome) >= 20


def test_answers_are_counted_by_their_bytes(tmp_path: Path) -> None:
    """Two conversations, one model: nats of all that the assistant says, over its bytes, whatever the recipe cuts."""
    recipe = {**RECIPES["talk"](tmp_path), "train": {"epochs": 1, "batch_size": 16}, "name": "talk"}
    stage = next(iter(tunewright.run(recipe, base=tmp_path, runs=tmp_path / "runs", console=silent()).stages.values()))
    origin = load_origin(stage.folder / "model")
    turns = [[{"role": "user", "content": "1+1?"}, {"role": "assistant", "content": text}] for text in ("2", "é9")]
    table = pa.table({"messages": [json.dumps(entry) for entry in turns], "_row": [1, 2]})
    outputs, counts = answers_by_byte(origin.network, origin.preprocessor.inputs, table)
    assert outputs[:, 2].tolist() == [1, 3] and (counts > 1).all() and (outputs[:, 0] > 0).all()


@pytest.mark.parametrize(
    "changes, names, match",
    [
        ({}, ["./nowhere"], "no such folder"),
        ({"task": "tabular-classification", "data": {"source": "wine"}}, None, "has no pretrained model"),
        ({"privacy": {"epsilon": 3}}, ["resnet20"], "without privacy"),
        (
            {"task": "masked-language-modeling", "data": {"source": "x.txt"}, "model": {}},
            ["minilm"],
            "cannot be compared",
        ),
    ],
)
def test_mistakes_are_named(tmp_path: Path, changes: dict[str, Any], names: list[str] | None, match: str) -> None:
    with pytest.raises(RecipeError, match=match):
        choose(write(tmp_path, **changes), [], ChooseSettings(names=names, planned=False), console=silent())


def test_a_model_that_cannot_be_opened_is_listed_with_the_reason(tmp_path: Path) -> None:
    (tmp_path / "broken").mkdir()
    (entry,) = choose(
        write(tmp_path), [], ChooseSettings(names=[str(tmp_path / "broken")], planned=False), console=silent()
    )
    assert entry.measured is None and entry.why_not
