"""Whole lives of models on real data: pretrain, fine-tune, evaluate, compare, predict."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import soundfile
import torch
from sklearn.datasets import load_digits

import tunewright
from repository import REPOSITORY
from tunewright.commands.compare import compare_runs
from tunewright.commands.data import check_data, prepare_to
from tunewright.commands.design import show_design
from tunewright.commands.init import write_recipe
from tunewright.commands.lr_find import find_learning_rate, steepest
from tunewright.console import silent
from tunewright.errors import ArtifactError, RecipeError, TargetMissed, UserError
from tunewright.files import sha256_file
from tunewright.models.saved_model import load_network
from tunewright.recipe.loading import load_recipe
from tunewright.run_recipe import run
from tunewright.runs.folder import read_json
from tunewright.tasks.registry import TASKS, get_task, task_defaults

FAST = {"eval": {"resamples": 100}}
MLP: list[Any] = ["flatten", {"dense": 32, "activation": "relu"}, {"dense": "auto"}]


def carry_out(tmp_path: Path, recipe: dict[str, Any], **options: Any) -> Any:
    return run({**FAST, **recipe}, runs=tmp_path / "runs", console=silent(), **options)


def test_pretrain_then_finetune_with_a_frozen_backbone(tmp_path: Path) -> None:
    result = carry_out(
        tmp_path,
        {
            "name": "life",
            "task": "image-classification",
            "data": {"source": "mnist", "limit": 3000, "split": {"valid": 0.1, "test": 0.1}},
            "model": {
                "layers": [
                    {"conv2d": 8, "stride": 2},
                    "batch_norm",
                    "relu",
                    {"conv2d": 16, "stride": 2},
                    "batch_norm",
                    "relu",
                    "global_pool",
                    {"dense": 10},
                ]
            },
            "train": {"epochs": 2},
            "stages": [
                "pretrain",
                {
                    "finetune": {
                        "data": {"source": "digits"},
                        "tune": {"freeze": "backbone"},
                        "model": {"head": [{"dense": 24, "activation": "relu"}, {"dense": "auto"}]},
                        "train": {"epochs": 8},
                        "eval": {"controls": ["from_scratch", "head_only"]},
                    }
                },
            ],
        },
    )
    before = load_network(result.stages["pretrain"].folder / "model").network
    after = load_network(result.stages["finetune"].folder / "model").network
    assert before.spec.input_shape == (1, 28, 28) and after.spec.input_shape == (1, 8, 8)
    for name, value in before.backbone.state_dict().items():
        assert torch.equal(value, after.backbone.state_dict()[name]), name
    summary = result.stages["finetune"].summary
    certificate = summary["certificate"]
    assert certificate["passed"] and len(certificate["frozen"]) == 4  # two convolutions, two norms: 14 tensors
    assert sum(entry["tensors"] for entry in certificate["frozen"]) == 14
    assert summary["evaluation"]["metrics"]["accuracy"]["value"] > 0.3
    assert [entry["verdict"] for entry in summary["comparisons"]] != []
    assert all(
        entry["difference"]["low"] <= entry["difference"]["value"] <= entry["difference"]["high"]
        for entry in summary["comparisons"]
    )
    assert result.report.exists() and read_json(result.folder / "run.json", "a run")["complete"]


def test_resnet20_learns_mnist_and_its_frozen_norms_stay(tmp_path: Path) -> None:
    result = carry_out(
        tmp_path,
        {
            "task": "image-classification",
            "data": {"source": "mnist", "limit": 600, "resize": [14, 14], "split": {"valid": 0.1, "test": 0.1}},
            "model": {"backbone": "resnet20"},
            "train": {"epochs": 2, "batch_size": 32, "lr": 0.003},
            "stages": ["pretrain", {"finetune": {"tune": {"freeze": "backbone"}, "train": {"epochs": 1}}}],
        },
    )
    assert abs(result.stages["pretrain"].summary["model"]["parameters"]["total"] - 0.27e6) < 0.005e6
    assert result.stages["pretrain"].summary["evaluation"]["metrics"]["accuracy"]["value"] > 0.3
    certificate = result.stages["finetune"].summary["certificate"]
    statistics = [e for e in certificate["frozen"] if "stage" in e["block"]]
    assert certificate["passed"] and len(statistics) == 9 and all(e["identical"] for e in statistics)


@pytest.mark.parametrize("objective", ["masked", {"denoising": {"std": 0.5}}])
def test_pretraining_without_labels_starts_the_finetune(tmp_path: Path, objective: Any) -> None:
    result = carry_out(
        tmp_path,
        {
            "task": "image-classification",
            "data": {"source": "digits", "labelled": False},
            "model": {"layers": MLP},
            "train": {"epochs": 3, "objective": objective},
            "stages": [
                "pretrain",
                {"finetune": {"data": {"source": "digits"}, "train": {"epochs": 10, "objective": "cross_entropy"}}},
            ],
        },
    )
    first, second = result.stages["pretrain"], result.stages["finetune"]
    assert first.summary.get("evaluation") is None
    assert load_network(first.folder / "model").network.spec.outputs == 64
    assert second.summary["evaluation"]["metrics"]["accuracy"]["value"] > 0.8
    with pytest.raises(ArtifactError, match="without labels"):
        tunewright.load_model(first.folder / "model")


def test_self_supervised_rows(tmp_path: Path) -> None:
    result = carry_out(
        tmp_path,
        {
            "task": "tabular-classification",
            "data": {"source": "breast-cancer", "labelled": False},
            "train": {"epochs": 3, "objective": "masked"},
            "stages": [
                "pretrain",
                {
                    "finetune": {
                        "data": {"source": "breast-cancer"},
                        "train": {"epochs": 15, "objective": "cross_entropy"},
                    }
                },
            ],
        },
    )
    assert result.stages["finetune"].summary["evaluation"]["metrics"]["accuracy"]["value"] > 0.85


@pytest.mark.parametrize(
    ("task", "source", "metric", "least"),
    [("tabular-classification", "wine", "accuracy", 0.85), ("tabular-regression", "diabetes", "r2", 0.25)],
)
def test_tables(tmp_path: Path, task: str, source: str, metric: str, least: float) -> None:
    result = carry_out(tmp_path, {"task": task, "data": {"source": source, "split": {"valid": 0.1, "test": 0.3}}})
    summary = result.stages["pretrain"].summary
    assert summary["evaluation"]["metrics"][metric]["value"] > least
    assert [entry["name"].split()[0] for entry in summary["evaluation"]["baselines"]] in (
        ["majority", "class", "linear"],
        ["mean", "median", "linear"],
    )
    table = pq.read_table(result.stages["pretrain"].folder / "predictions.parquet")
    assert table.num_rows == summary["evaluation"]["rows"]
    model = tunewright.load_model(result.stages["pretrain"].folder / "model")
    assert len(tunewright.predict(model, source)) == summary["data"]["used"]


def test_seeds_and_target(tmp_path: Path) -> None:
    recipe = {
        "task": "image-classification",
        "data": {"source": "digits"},
        "model": {"layers": MLP},
        "train": {"epochs": 2},
    }
    result = carry_out(tmp_path, {**recipe, "eval": {"resamples": 100, "seeds": 3, "target": {"accuracy": 0.2}}})
    seeds = result.stages["pretrain"].summary["seeds"]["metrics"]["accuracy"]
    assert len(set(seeds["values"])) > 1 and seeds["low"] < seeds["mean"] < seeds["high"]
    assert sha256_file(result.folder / "seeds/1/pretrain/model/model.safetensors") != sha256_file(
        result.folder / "pretrain/model/model.safetensors"
    )
    with pytest.raises(TargetMissed) as caught:
        carry_out(tmp_path, {**recipe, "eval": {"resamples": 100, "target": {"accuracy": 0.999}}})
    assert caught.value.exit_code == 1 and "instead of 0.999" in caught.value.message
    assert (tmp_path / "runs" / "image-classification-2" / "report.html").exists()


def test_until_stops_and_the_same_run_goes_on(tmp_path: Path) -> None:
    recipe = {
        "name": "two",
        "task": "image-classification",
        "data": {"source": "digits"},
        "model": {"layers": MLP},
        "train": {"epochs": 1},
        "stages": ["pretrain", {"finetune": {"tune": {"freeze": "backbone"}}}],
    }
    first = carry_out(tmp_path, recipe, until="pretrain")
    stamp = sha256_file(first.folder / "pretrain" / "model" / "model.safetensors")
    assert list(first.stages) == ["pretrain"] and not read_json(first.folder / "run.json", "")["complete"]
    second = carry_out(tmp_path, recipe, until="finetune")
    assert (
        second.folder == first.folder
        and sha256_file(first.folder / "pretrain" / "model" / "model.safetensors") == stamp
    )
    with pytest.raises(RecipeError, match="no finetune stage"):
        carry_out(tmp_path, {**recipe, "stages": ["pretrain"]}, until="finetune")


def test_a_model_given_by_its_folder(tmp_path: Path) -> None:
    recipe = {
        "task": "image-classification",
        "data": {"source": "digits"},
        "model": {"layers": MLP},
        "train": {"epochs": 1},
    }
    first = carry_out(tmp_path, recipe)
    weights = str(first.folder / "pretrain" / "model")
    second = carry_out(
        tmp_path,
        {
            **recipe,
            "name": "again",
            "model": {"weights": weights, "layers": MLP},
            "tune": {"freeze": "backbone"},
            "stages": ["finetune"],
        },
    )
    assert second.stages["finetune"].summary["certificate"]["passed"]
    assert "new head" not in (second.folder / "log.txt").read_text()
    with pytest.raises(UserError, match="resize"):
        carry_out(
            tmp_path,
            {
                **recipe,
                "name": "other",
                "data": {"source": "mnist", "limit": 200},
                "model": {"weights": weights, "layers": MLP},
                "stages": ["finetune"],
            },
        )
    with pytest.raises(ArtifactError, match="reads other inputs"):
        carry_out(
            tmp_path,
            {
                "name": "wrong",
                "task": "tabular-classification",
                "data": {"source": "wine"},
                "model": {"weights": weights},
                "stages": ["finetune"],
            },
        )


def test_compare(tmp_path: Path) -> None:
    recipe = {
        "task": "image-classification",
        "data": {"source": "digits", "split": {"test": 0.3}},
        "train": {"epochs": 8},
    }
    good = carry_out(tmp_path, {**recipe, "name": "good", "model": {"layers": MLP}})
    poor = carry_out(tmp_path, {**recipe, "name": "poor", "model": {"layers": MLP}, "train": {"epochs": 1, "lr": 1e-5}})
    found = compare_runs(good.folder, poor.folder, console=silent())
    assert found["accuracy"].verdict == "better" and found["log_loss"].verdict == "better"
    assert compare_runs(good.folder, good.folder, console=silent())["accuracy"].verdict == "no real difference"
    with pytest.raises(UserError):
        compare_runs(good.folder, tmp_path, console=silent())


def test_predict_pictures_and_tables(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    import numpy as np
    from PIL import Image

    from tunewright.commands.predict import print_predictions

    result = carry_out(
        tmp_path,
        {
            "task": "image-classification",
            "data": {"source": "digits"},
            "model": {"layers": MLP},
            "train": {"epochs": 15},
        },
    )
    folder = result.stages["pretrain"].folder / "model"
    digits = load_digits()
    right = 0
    for index in range(20):
        Image.fromarray(np.rint(digits.images[index] * (255 / 16)).astype(np.uint8)).save(tmp_path / f"{index}.png")
        (found,) = tunewright.predict(folder, tmp_path / f"{index}.png")
        assert abs(sum(found["probabilities"].values()) - 1) < 1e-6
        right += found["prediction"] == str(digits.target[index])
    assert right >= 17
    print_predictions(folder, "digits")
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert len(lines) == 1797 and lines[0]["row"] == 1
    with pytest.raises(UserError):
        tunewright.predict(folder, tmp_path / "none.png")


def _few_texts(path: Path, task: str) -> str:
    """Made-up reviews in a file; its path."""
    words = [
        ("a fine, warm room", 1),
        ("cold food and a rude waiter", 0),
        ("I would come again", 1),
        ("never again", 0),
    ]
    answers: dict[str, Callable[[int, int], object]] = {
        "text-regression": lambda good, i: good * 4 + i % 3,
        "text-multilabel-classification": lambda good, i: "good|mild" if good else "bad",
    }
    answer = answers.get(task, lambda good, i: "good" if good else "bad")
    lines = [f"{text} number {i},{answer(good, i)}" for i in range(30) for text, good in [words[i % 4]]]
    names = {"supervised-fine-tuning": "prompt,completion", "preference-tuning": "prompt,chosen,rejected"}
    ends = ",never" if task == "preference-tuning" else ""
    path.write_text("\n".join([names.get(task, "text,label"), *(line.replace(", ", " ") + ends for line in lines)]))
    return str(path)


def _few_clicks(path: Path, task: str) -> str:
    """Who chose what, made up, in a file; its path."""
    rows = [f"{user},{(user * 7 + place * 3) % 40},{place % 2}" for user in range(30) for place in range(12)]
    path.write_text("\n".join(["user,item,label", *rows]))
    return str(path)


def _few_recordings(path: Path, task: str) -> str:
    """Tones of two heights with a word for each, in files; the path of their table."""
    for number in range(40):
        tone = np.sin(np.arange(8000) * (0.1 + number % 2 / 5)) / 3
        soundfile.write(path.with_name(f"{number}.wav"), tone, 16_000)
    path.write_text("\n".join(["audio,text", *(f"{number}.wav,{'ab'[number % 2]}" for number in range(40))]))
    return str(path)


def _few_entities(path: Path, task: str) -> str:
    """Sentences with the tags of their words, as JSON in a table; its path."""
    sentences = [["the", "film", "was", word] for word in ("good", "bad", "fine", "dull") for _ in range(15)]
    lines = ["tokens,tags"]
    for number, words in enumerate(sentences):
        tags = ["O", "B-WORK", "O", "O" if number % 2 else "B-PRAISE"]
        lines.append(",".join('"' + json.dumps(cell).replace('"', '""') + '"' for cell in (words, tags)))
    path.write_text("\n".join(lines))
    return str(path)


MADE_UP: dict[str, Callable[[Path, str], str]] = {
    "click-prediction": _few_clicks,
    "item-recommendation": _few_clicks,
    "speech-recognition": _few_recordings,
    "token-classification": _few_entities,
}


def _that_talks(place: Path) -> str:
    """The folder of a very small model that was taught to answer."""
    place /= "talks"
    place.mkdir()
    source = _few_texts(place / "texts.csv", "supervised-fine-tuning")
    model = "{backbone: {gpt: {layers: 1, width: 16, heads: 2, context: 64}}, tokenizer: {bpe: {vocabulary: 262}}}"
    (place / "talk.yaml").write_text(f"task: supervised-fine-tuning\ndata: {{source: {source}}}\nmodel: {model}\n")
    done = run(place / "talk.yaml", overrides=["train.epochs=1"], runs=place / "runs", console=silent())
    return str(next(done.folder.rglob("model")))


@pytest.mark.parametrize("task", TASKS)
def test_init_writes_a_recipe_that_runs(tmp_path: Path, task: str) -> None:
    source = {"image-classification": "digits", "tabular-classification": "wine", "tabular-regression": "diabetes"}.get(
        task
    ) or MADE_UP.get(task, _few_texts)(tmp_path / "rows.csv", task)
    path = tmp_path / "recipe.yaml"
    assert "next:" in write_recipe(task, source, path)
    changes = ["train.epochs=1", "eval.resamples=100"]
    if get_task(task).network.needs_trained_model:
        changes.append(f"model.weights={json.dumps(_that_talks(tmp_path))}")
    assert load_recipe(path, changes, defaults=task_defaults).task == task
    assert run(path, overrides=changes, runs=tmp_path / "runs", console=silent()).report is not None
    with pytest.raises(UserError, match="not overwritten"):
        write_recipe(task, source, path)


def test_init_on_a_file_names_its_columns(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text(
        "größe,farbe,label\n" + "".join(f"{i},{'rot' if i % 2 else 'blau'},{i % 2}\n" for i in range(60))
    )
    write_recipe("tabular-classification", str(tmp_path / "t.csv"), tmp_path / "recipe.yaml")
    recipe = load_recipe(tmp_path / "recipe.yaml", defaults=task_defaults)
    assert recipe.data.input == ["größe", "farbe"] and recipe.data.target == "label" and recipe.data.source == "t.csv"


def test_learning_rate_range_test(tmp_path: Path) -> None:
    path = tmp_path / "recipe.yaml"
    path.write_text(
        "task: image-classification\ndata: {source: digits}\nmodel: {layers: [flatten, {dense: 32, activation: relu}, {dense: auto}]}\n"
    )
    found = find_learning_rate(path, [], console=silent())
    assert 1e-4 < found.lr < 1 and len(found.trace) > 20
    assert steepest(
        [(10.0**k, loss) for k, loss in zip(range(-6, 2), [2, 2, 2, 1.9, 1.0, 0.9, 1.5, 3])]
    ) == pytest.approx(1e-3)


def test_design_and_data_verbs(tmp_path: Path) -> None:
    path = REPOSITORY / "examples" / "mnist" / "recipe.yaml"
    first, second = show_design(path, [], tmp_path / "n.svg", console=silent())
    assert first.parameters.total == 101_770 and second.parameters.frozen == 100_480
    assert (tmp_path / "n-pretrain.svg").read_text().startswith("<svg")
    found = prepare_to(path, [], tmp_path / "out", console=silent())
    assert [part.manifest.used for part in found] == [70_000, 1_797]


def test_data_check_as_json(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "recipe.yaml"
    path.write_text("task: tabular-classification\ndata: {source: wine}\n")
    check_data(path, [], as_json=True)
    findings = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert {"rows", "types", "class-balance"} <= {entry["code"] for entry in findings}


def test_the_python_api(tmp_path: Path) -> None:
    recipe = tunewright.Recipe(
        task="image-classification",
        data={"source": "digits"},
        train={"epochs": 1},
        model={"layers": MLP},
        eval={"resamples": 100},
    )  # type: ignore[arg-type]
    result = tunewright.run(recipe, runs=tmp_path, console=silent())
    assert result.stages["pretrain"].summary["training"]["epochs"] == 1
    assert (
        sorted(tunewright.__all__)
        == tunewright.__all__
        == ["Recipe", "RunFailed", "TunewrightError", "UserError", "load_model", "predict", "run"]
    )
    assert all(hasattr(tunewright, name) for name in tunewright.__all__)
