"""Explanations: exact values of small functions, planted truths that must be found, networks without learning, and the check."""

from __future__ import annotations

import copy
import itertools
import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
from scipy.stats import spearmanr
from transformers import LlamaConfig

import tunewright
from architectures import IMAGE
from tiny import tiny_bert
from tunewright.commands.evaluate import evaluate_run
from tunewright.commands.explain import ExplainSettings, explain, name_suspects
from tunewright.console import Console, silent
from tunewright.data.manifest import Rejects
from tunewright.errors import ArtifactError, DataError, RecipeError, UserError
from tunewright.evaluation.attribution import METHODS, Explained, ablation, check, integrated_gradients, shapley
from tunewright.explaining.concepts import print_concepts
from tunewright.explaining.influence import learned_from, suspects
from tunewright.inference.model import Model, load_model
from tunewright.inference.read_input import read_input
from tunewright.models.hub.attention_rollout import attention_rollout
from tunewright.models.hub.hf_network import Transformer, TransformerSpec, build_transformer, describe_transformer
from tunewright.models.hub.purposes import CAUSAL_LM, IMAGE_CLASSIFICATION
from tunewright.tasks.image.explain import on_patches

PLANTED = 20


# The methods, on functions whose answer is known


def of(function: Any, count: int, along: Any = None) -> Explained:
    units = [str(unit) for unit in range(count)]
    return Explained(units=units, value=lambda present: function(present.double()), along=along, what=["f"], absent="0")


def test_shapley_values_are_those_of_all_orders() -> None:
    def game(x: torch.Tensor) -> torch.Tensor:
        return 3 * x[:, 0] + x[:, 1] * x[:, 2] - 2 * x[:, 0] * x[:, 3] + x[:, 1]

    exact = np.zeros(4)
    for order in itertools.permutations(range(4)):
        present = torch.zeros(1, 4)
        before = game(present)
        for unit in order:
            present[0, unit] = 1
            now = game(present)
            exact[unit] += float(now - before) / math.factorial(4)
            before = now
    found = shapley(of(game, 4))
    assert found.converged and found.scores == pytest.approx(exact, abs=0.2)
    assert found.scores.sum() == pytest.approx(float(game(torch.ones(1, 4))), abs=1e-6)


def test_what_does_not_settle_is_marked() -> None:
    def noise(x: torch.Tensor) -> torch.Tensor:  # another value for each set of units, and no unit that matters
        return torch.sin(1e4 * (x @ torch.sqrt(torch.arange(2, 17).double())))

    assert not shapley(of(noise, 15)).converged


def test_integrated_gradients_add_up_and_a_step_is_marked() -> None:
    def smooth(t: torch.Tensor) -> torch.Tensor:  # f = x₀² + sin(3 x₁) from (0, 0) to (1, 1)
        return torch.stack([2 * t, 3 * torch.cos(3 * t)], 1)

    def value(x: torch.Tensor) -> torch.Tensor:
        return x[:, 0] ** 2 + torch.sin(3 * x[:, 1])

    found = integrated_gradients(of(value, 2, smooth))
    assert found.converged and found.scores == pytest.approx([1, math.sin(3)], abs=0.05)

    def step(x: torch.Tensor) -> torch.Tensor:
        return (x.sum(1) > 1).double()

    missed = integrated_gradients(of(step, 2, lambda t: torch.zeros(len(t), 2)))
    assert not missed.converged and missed.facts["steps"] == 1024


def test_ablation_is_the_fall_without_each_unit() -> None:
    assert ablation(of(lambda x: x[:, 0] * x[:, 1] + 2 * x[:, 2], 3)).scores.tolist() == [1, 1, 2]


def test_the_check_tells_a_true_order_from_a_false_one() -> None:
    weights = torch.arange(20).double() ** 2

    def value(x: torch.Tensor) -> torch.Tensor:
        return x @ weights

    explained = of(value, 20)
    assert check(explained, weights.numpy()).faithful
    assert not check(explained, -weights.numpy()).faithful
    lots = [check(explained, np.random.default_rng(seed).normal(size=20)).faithful for seed in range(40)]
    assert sum(lots) <= 6  # a random ranking passes about one time in twenty


def test_an_answer_that_depends_on_nothing_has_no_faithful_explanation() -> None:
    assert not check(of(lambda x: torch.ones(len(x)), 12), np.arange(12.0)).faithful


# Planted truths: one unit decides, and the default method must name it


def trained(folder: Path, recipe: dict[str, Any]) -> Path:
    run = tunewright.run({**recipe, "name": "planted"}, runs=folder / "runs", base=folder, console=silent())
    (stage,) = run.stages.values()
    accuracy = stage.summary["evaluation"]["metrics"].get("accuracy", {}).get("value")
    assert accuracy is None or accuracy > 0.97
    return stage.folder / "model"


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, np.ndarray]:
    """Noise with one bright or one dark cell of the 8 × 8; the model, examples and the cell of each."""
    folder = tmp_path_factory.mktemp("pictures")
    rng = np.random.default_rng(0)
    count = 1500
    pixels = rng.integers(118, 138, (count, 16, 16)).astype(np.uint8)
    cells, bright = rng.integers(0, 64, count), rng.integers(0, 2, count)
    for image, cell, up in zip(pixels, cells, bright):
        image[cell // 8 * 2 : cell // 8 * 2 + 2, cell % 8 * 2 : cell % 8 * 2 + 2] = 250 if up else 5
    np.savez(folder / "rows.npz", x=pixels[PLANTED:], y=bright[PLANTED:].astype(str))
    np.savez(folder / "examples.npz", x=pixels[:PLANTED], y=bright[:PLANTED].astype(str))
    layers = [{"conv2d": 8, "kernel": 3, "activation": "relu"}, "global_pool", {"dense": "auto"}]
    recipe = {
        "task": "image-classification",
        "data": {"source": "rows.npz"},
        "model": {"layers": layers},
        "train": {"epochs": 15, "lr": 1e-2, "early_stopping": {"patience": 4}},
    }
    return trained(folder, recipe), folder / "examples.npz", cells[:PLANTED]


@pytest.fixture(scope="module")
def texts(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, list[int]]:
    """Fillers with one word that decides; the model, examples and the word's place."""
    folder = tmp_path_factory.mktemp("texts")
    rng = np.random.default_rng(0)
    fillers = ["the", "a", "film", "book", "room", "was", "is", "very", "quite", "plot", "food"]
    rows: list[tuple[str, str, int]] = []
    for _ in range(700):
        words = [str(rng.choice(fillers)) for _ in range(8)]
        place, good = int(rng.integers(8)), bool(rng.integers(2))
        words[place] = str(rng.choice(["good", "fine", "great"] if good else ["bad", "poor", "awful"]))
        rows.append((" ".join(words), "good" if good else "bad", place))
    lines = [json.dumps({"text": text, "label": label}) + "\n" for text, label, _ in rows]
    (folder / "rows.jsonl").write_text("".join(lines[PLANTED:]))
    (folder / "examples.jsonl").write_text("".join(lines[:PLANTED]))
    tiny_bert(folder / "bert", layers=2)
    recipe = {
        "task": "text-classification",
        "data": {"source": "rows.jsonl", "input": "text", "target": "label"},
        "model": {"backbone": "./bert"},
        "tune": {"method": "gradient"},
        "train": {"epochs": 8, "lr": 2e-3},
    }
    return trained(folder, recipe), folder / "examples.jsonl", [place for *_, place in rows[:PLANTED]]


@pytest.fixture(scope="module")
def clicks(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, list[int]]:
    """Six columns, of which the fourth decides."""
    folder = tmp_path_factory.mktemp("clicks")
    rng = np.random.default_rng(0)
    cells = rng.integers(0, 4, (1500, 6))
    header = "a,b,c,d,e,f,label\n"
    rows = [
        ",".join(f"{name}{value}" for name, value in zip("abcdef", row)) + f",{row[3] % 2}\n" for row in cells.tolist()
    ]
    (folder / "rows.csv").write_text(header + "".join(rows[PLANTED:]))
    (folder / "examples.csv").write_text(header + "".join(rows[:PLANTED]))
    recipe = {
        "task": "click-prediction",
        "data": {"source": "rows.csv", "target": "label"},
        "model": {"backbone": "fm"},
        "train": {"epochs": 20, "batch_size": 64, "lr": 1e-2},
    }
    return trained(folder, recipe), folder / "examples.csv", [3] * PLANTED


@pytest.fixture(scope="module")
def writing(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[tuple[str, str, int]]]:
    """Letters, one capital, more letters, and at last the digit that belongs to the capital."""
    folder = tmp_path_factory.mktemp("writing")
    rng = np.random.default_rng(0)
    answers = {"A": "1", "B": "2", "C": "3"}
    rows: list[tuple[str, str, int]] = []
    for number in range(3000):
        place, capital = int(rng.integers(6)), str(rng.choice(list(answers)))
        length = 8 if number < PLANTED else place + 1 + int(rng.integers(8))
        letters = [str(rng.choice(list("xyzwvu"))) for _ in range(length)]
        letters[place] = capital
        rows.append(("".join(letters), answers[capital], place))
    (folder / "rows.jsonl").write_text(
        "".join(json.dumps({"text": text + digit}) + "\n" for text, digit, _ in rows[PLANTED:])
    )
    recipe = {
        "task": "language-modeling",
        "data": {"source": "rows.jsonl", "input": "text"},
        "model": {
            "backbone": {"gpt": {"layers": 2, "heads": 2, "width": 32, "context": 24}},
            "tokenizer": "characters",
        },
        "train": {"epochs": 40, "batch_size": 12, "lr": 4e-3},
    }
    return trained(folder, recipe), rows[:PLANTED]


@pytest.fixture(scope="module")
def tones(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[Path], list[int]]:
    """A second of quiet with one to five tones, each within a tenth of it: a low one is an a, a high one a b. Examples have one."""
    folder = tmp_path_factory.mktemp("tones")
    rng = np.random.default_rng(0)
    lines = ["audio,text\n"]
    places: list[int] = []
    for number in range(400):
        sound = 0.003 * rng.normal(size=16_000)
        chosen = np.sort(rng.permutation(np.arange(1, 9))[: 1 if number < PLANTED else 1 + number % 5])
        letters = rng.integers(0, 2, len(chosen))
        time = np.arange(1200) / 16_000
        for place, high in zip(chosen, letters):
            sound[place * 1600 + 300 : place * 1600 + 1500] += 0.3 * np.sin(2 * np.pi * (1800 if high else 500) * time)
        soundfile.write(folder / f"{number}.wav", sound, 16_000)
        places.append(int(chosen[0]))
        if number >= PLANTED:
            lines.append(f"{number}.wav,{''.join('ab'[high] for high in letters)}\n")
    (folder / "rows.csv").write_text("".join(lines))
    recipe = {
        "task": "speech-recognition",
        "data": {"source": "rows.csv", "split": {"valid": 0.1, "test": 0.1}},
        "model": {"backbone": {"deepspeech": {"channels": 4, "hidden": 32, "layers": 1, "ahead": 4}}},
        "train": {"epochs": 25, "batch_size": 8, "lr": 5e-3},
    }
    return trained(folder, recipe), [folder / f"{number}.wav" for number in range(PLANTED)], places[:PLANTED]


@pytest.fixture(scope="module")
def histories(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, str], list[int]]:
    """Users who chose fillers, one key, more fillers, and at last what belongs to the key."""
    folder = tmp_path_factory.mktemp("histories")
    rng = np.random.default_rng(0)
    lines = ["user,item,time\n"]
    places: list[int] = []
    doors: dict[str, str] = {}
    for user in range(2500):
        place, key = int(rng.integers(5)), int(rng.integers(4))
        items = [f"filler{rng.integers(12)}" for _ in range(6 if user < PLANTED else place + 1 + int(rng.integers(5)))]
        items[place] = f"key{key}"
        if user < PLANTED:
            places.append(place)
            doors[f"u{user}"] = f"door{key}"
        else:
            items.append(f"door{key}")
        lines += [f"u{user},{item},{number}\n" for number, item in enumerate(items)]
    (folder / "rows.csv").write_text("".join(lines))
    recipe = {
        "task": "item-recommendation",
        "data": {"source": "rows.csv", "split": {"valid": 0.0, "test": 0.0}},
        "model": {"backbone": {"sasrec": {"width": 32, "layers": 1, "heads": 1, "length": 12, "dropout": 0.0}}},
        "train": {"epochs": 25, "batch_size": 32, "lr": 3e-3},
    }
    return trained(folder, recipe), doors, places


def named_first(model: Path, examples: list[str], **options: Any) -> list[int]:
    found = explain(model, examples, ExplainSettings(rows=PLANTED, **options), console=silent())
    return [int(np.argmax(one.found.scores)) for one in found]


def share(found: list[int], planted: Any) -> float:
    return float(np.mean(np.array(found) == np.array(planted)))


def test_the_cell_that_decides_is_found(pictures: tuple[Path, Path, np.ndarray]) -> None:
    model, examples, cells = pictures
    assert share(named_first(model, [str(examples)]), cells) >= 0.95


def test_the_word_that_decides_is_found(texts: tuple[Path, Path, list[int]]) -> None:
    model, examples, places = texts
    assert share(named_first(model, [str(examples)]), places) >= 0.95


def test_the_column_that_decides_is_found(clicks: tuple[Path, Path, list[int]]) -> None:
    model, examples, places = clicks
    assert share(named_first(model, [str(examples)]), places) >= 0.95


@pytest.mark.slow
def test_the_token_that_decides_the_next_one_is_found(writing: tuple[Path, list[tuple[str, str, int]]]) -> None:
    model, rows = writing
    found = [named_first(model, [text], target=digit)[0] for text, digit, _ in rows]
    assert share(found, [place for *_, place in rows]) >= 0.95


@pytest.mark.slow
def test_the_tenth_of_a_second_that_was_heard_is_found(tones: tuple[Path, list[Path], list[int]]) -> None:
    model, sounds, places = tones
    assert share(named_first(model, [*map(str, sounds)]), places) >= 0.95


def test_the_item_that_decides_the_next_one_is_found(histories: tuple[Path, dict[str, str], list[int]]) -> None:
    model, users, places = histories
    found = [named_first(model, [json.dumps({"user": user})], target=door)[0] for user, door in users.items()]
    assert share(found, places) >= 0.95


# A network that has not learned must be explained otherwise (Adebayo et al. 2018)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("kind", ["flipped", "texts"])
def test_other_weights_are_explained_otherwise(kind: str, method: str, request: pytest.FixtureRequest) -> None:
    folder, examples = (
        request.getfixturevalue(kind)[:2] if kind == "texts" else (request.getfixturevalue(kind)[0], "digits")
    )
    model = load_model(folder)
    (piece, *_) = read_input(str(examples), model.preprocessor, Rejects())
    table = piece.table.slice(0, 8)

    def scores(one: Model) -> list[np.ndarray]:
        preprocessor = replace(one.preprocessor, inputs=piece.inputs)
        asked = [preprocessor.question(one.network.eval(), table.slice(row, 1), None) for row in range(table.num_rows)]
        return [METHODS[method](question.explained, 0).scores for question in asked]

    learned = scores(model)
    found: list[float] = []
    for seed in range(3):
        other = load_model(folder)
        generator = torch.Generator().manual_seed(seed)
        with torch.no_grad():
            for value in other.network.parameters():
                value.copy_(value.std(unbiased=False).clamp(min=0.05) * torch.randn(value.shape, generator=generator))
        found += [spearmanr(a, b).statistic for a, b in zip(learned, scores(other))]
    assert abs(float(np.mean(found))) <= 0.3


# Views


def test_attention_roll_out_is_the_product_over_layers(texts: tuple[Path, Path, list[int]]) -> None:
    model = load_model(texts[0])
    network = model.network
    assert isinstance(network, Transformer)
    (one,) = explain(texts[0], ["the film was good"], ExplainSettings(method="attention-rollout"), console=silent())
    ids = model.preprocessor.inputs.tokenizer("the film was good", return_tensors="pt")  # pyright: ignore
    library: Any = copy.deepcopy(network.core)
    library.set_attn_implementation("eager")
    with torch.no_grad():
        maps = library(**ids, output_attentions=True).attentions
    first, second = (0.5 * layer[0].mean(0) + 0.5 * torch.eye(6) for layer in maps)
    assert one.found.scores == pytest.approx((second @ first)[0, 1:-1].numpy(), abs=1e-5)
    assert one.to_json()["view"] is True and one.found.converged
    assert network.core.config._attn_implementation != "eager"  # the model itself is as it was


def test_attention_of_our_own_language_model_looks_back_alone() -> None:
    config = LlamaConfig(
        vocab_size=20, hidden_size=16, intermediate_size=24, num_hidden_layers=2, num_attention_heads=2,
        num_key_value_heads=1, max_position_embeddings=16,
    )  # fmt: skip
    spec = TransformerSpec(purpose=CAUSAL_LM, config={**config.to_dict(), "model_type": "llama"}, head=None)
    network = build_transformer(spec, seed=0)
    ids = torch.tensor([[3, 1, 4, 1, 5]])
    found = attention_rollout(network, {"input_ids": ids, "attention_mask": torch.ones_like(ids)})
    assert float(found.sum()) == pytest.approx(1, abs=1e-5)
    assert bool((found > 0).all())


def test_attention_lies_on_patches_of_a_picture() -> None:
    config = {"model_type": "vit", **IMAGE, "image_size": 32}
    described = describe_transformer(IMAGE_CLASSIFICATION, config, head=None, classes=["a", "b"])
    network = build_transformer(described, seed=0)
    pixels = torch.rand(1, 3, 32, 32)
    found = attention_rollout(network, pixels)
    assert len(found) == 17
    patches = on_patches(network, pixels, 4, 4)
    assert patches.tolist() == pytest.approx(found[1:].tolist())
    assert float(on_patches(network, pixels, 2, 2).mean()) == pytest.approx(float(found[1:].mean()), abs=1e-6)


def test_a_network_without_attention_has_no_roll_out(pictures: tuple[Path, Path, np.ndarray]) -> None:
    with pytest.raises(RecipeError, match="no attention"):
        explain(pictures[0], [str(pictures[1])], ExplainSettings(method="attention-rollout"), console=silent())


@pytest.fixture(scope="module")
def measures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six numbers, of which the fourth decides; files of rows where the fourth, or the first, is large."""
    folder = tmp_path_factory.mktemp("measures")
    rng = np.random.default_rng(0)
    rows = rng.normal(size=(1200, 6))
    header = "a,b,c,d,e,f,label\n"

    def write(name: str, some: np.ndarray) -> None:
        lines = [",".join(f"{cell:.4f}" for cell in row) + f",{'high' if row[3] > 0 else 'low'}\n" for row in some]
        (folder / name).write_text(header + "".join(lines))

    write("rows.csv", rows)
    large = rng.normal(size=(60, 6))
    for name, column in (("fourth.csv", 3), ("first.csv", 0)):
        some = large.copy()
        some[:, column] = 1 + np.abs(some[:, column])
        write(name, some)
    recipe = {
        "task": "tabular-classification",
        "data": {"source": "rows.csv", "target": "label"},
        "model": {"layers": [{"dense": 16, "activation": "relu"}, {"dense": "auto"}]},
        "train": {"epochs": 20, "lr": 1e-2},
    }
    return trained(folder, recipe)


def test_a_concept_that_decides_is_told_from_one_that_does_not(
    measures: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = measures.parents[3]
    named = [f"{name}={folder / name}.csv" for name in ("fourth", "first")]
    print_concepts(measures, named, as_json=True)
    found = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [entry["concept"] for entry in found] == ["fourth", "first"]
    assert all(entry["auc"] > 0.9 and abs(entry["auc_at_random"] - 0.5) < 0.15 for entry in found)
    decides, other = ({one["answer"]: one for one in entry["leanings"]} for entry in found)
    assert decides["high"]["effect"] > 1 and decides["low"]["effect"] < -1
    assert decides["high"]["percentile"] == 1 and decides["high"]["rising"] > 0.9
    assert abs(other["high"]["effect"]) < abs(decides["high"]["effect"]) / 4
    print_concepts(measures, named[:1], as_json=False)
    assert "fourth (60 rows), a view" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("given", "said"), [("fourth", "NAME=FILE"), ("few=few.csv", "too few rows"), ("none=absent.csv", "absent.csv")]
)
def test_what_is_no_concept_is_said(
    measures: Path, given: str, said: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "few.csv").write_text("a,b,c,d,e,f\n" + "1,2,3,4,5,6\n" * 3)
    with pytest.raises(UserError, match=said):
        print_concepts(measures, [given], as_json=True)


# In a run's report


def test_a_run_explains_its_worst_mistakes(flipped: tuple[Path, set[int]]) -> None:
    run = flipped[0].parents[1]
    evaluate_run(run, ["eval.explain=3"], console=silent())
    evaluation = json.loads((run / "pretrain" / "summary.json").read_text())["evaluation"]
    found = evaluation["explanations"]
    assert [entry["row"] for entry in found] == [entry["row"] for entry in evaluation["mistakes"][:3]]
    assert all(entry["answer"].startswith(entry["phrases"]["answer"][1]) for entry in found)
    assert [entry["target"] for entry in found] == [entry["target"] for entry in evaluation["mistakes"][:3]]
    assert all(len(entry["units"]) == 64 and entry["shape"] == [8, 8] for entry in found)
    assert found[0]["image"].startswith("data:image/png")
    page = (run / "report.html").read_text()
    assert "Explanations of answers" in page and "Removing the top-ranked units" in page


def test_a_run_whose_model_is_not_explained_says_so_and_goes_on(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = [f"u{user},i{(user * 7 + k) % 11},{k}" for user in range(40) for k in range(6)]
    (tmp_path / "rows.csv").write_text("user,item,time\n" + "\n".join(rows) + "\n")
    recipe = {
        "task": "item-recommendation",
        "data": {"source": "rows.csv"},
        "model": {"backbone": {"factors": {"width": 4}}},
        "train": {"epochs": 1},
        "eval": {"explain": 2, "resamples": 100},
    }
    done = tunewright.run(recipe, runs=tmp_path / "runs", base=tmp_path, console=Console())
    assert done.stages["pretrain"].summary["evaluation"]["explanations"] == []
    assert "nothing is explained" in " ".join(capsys.readouterr().out.split())


# Labels that were turned round, and rows of influence


@pytest.fixture(scope="module")
def flipped(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, set[int]]:
    """Digits, of which one label in ten is another one."""
    from sklearn.datasets import load_digits

    folder = tmp_path_factory.mktemp("flipped")
    digits: Any = load_digits()
    count = 900
    rng = np.random.default_rng(0)
    labels = digits.target[:count].copy()
    wrong = rng.permutation(len(labels))[: len(labels) // 10]
    labels[wrong] = (labels[wrong] + rng.integers(1, 10, len(wrong))) % 10
    pixels = np.rint(digits.images[:count] * (255 / 16)).astype(np.uint8)
    np.savez(folder / "rows.npz", x=pixels, y=labels.astype(str))
    recipe = {
        "name": "flipped",
        "task": "image-classification",
        "data": {"source": "rows.npz"},
        "model": {"layers": ["flatten", {"dense": 32, "activation": "relu"}, {"dense": "auto"}]},
        "train": {"epochs": 20},
    }
    run = tunewright.run(recipe, runs=folder / "runs", base=folder, console=silent())
    return run.stages["pretrain"].folder / "model", {int(row) + 1 for row in wrong}


def test_flipped_labels_are_among_the_suspects(
    flipped: tuple[Path, set[int]], capsys: pytest.CaptureFixture[str]
) -> None:
    folder, wrong = flipped
    learned = learned_from(folder, load_model(folder))
    looked_at = suspects(learned)
    assert looked_at is not None
    rows = learned.table["_row"].to_pylist()
    trained_wrong = wrong & set(rows)
    first = {rows[position] for position in looked_at[0][: len(rows) // 5].tolist()}
    assert len(first & trained_wrong) / len(trained_wrong) >= 0.8
    named = name_suspects(folder, as_json=True)
    assert len(named) == 20 and sum(entry["row"] in wrong for entry in named) >= 18
    assert json.loads(capsys.readouterr().out.splitlines()[0]) == named[0]


def test_rows_of_influence_have_the_answers_class_and_are_checked(flipped: tuple[Path, set[int]]) -> None:
    folder, _ = flipped
    found = explain(folder, ["digits"], ExplainSettings(rows=4, influence=True), console=silent())
    for one in found:
        assert one.influence is not None
        answer = one.question.answer[1]
        assert sum(entry["label"] == answer for entry in one.influence["for"]) >= 3
        assert all(entry["influence"] > 0 for entry in one.influence["for"])
        assert all(entry["influence"] < 0 for entry in one.influence["against"])
    assert np.mean([one.influence["percentile"] for one in found if one.influence]) >= 0.9


# The verb


def test_json_and_page_hold_the_whole_explanation(
    texts: tuple[Path, Path, list[int]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    page = tmp_path / "why.html"
    explain(texts[0], ["the film was good", "the <b>book</b> was awful"], html=page, as_json=True)
    first, second = map(json.loads, capsys.readouterr().out.splitlines())
    assert [unit["unit"] for unit in first["units"]] == ["the", "film", "was", "good"]
    assert max(first["units"], key=lambda unit: unit["score"])["unit"] == "good"
    assert first["converged"] and set(first["check"]["percentile"]) == {"comprehensiveness", "sufficiency", "deletion"}
    assert second["answer"].startswith("bad")
    html = page.read_text()
    assert "good" in html and "<b>" not in html and "<script" not in html
    with pytest.raises(UserError, match="already exists"):
        explain(texts[0], ["x"], html=page)


def test_another_class_can_be_asked_for(texts: tuple[Path, Path, list[int]]) -> None:
    (one,) = explain(texts[0], ["the film was good"], ExplainSettings(target="bad"), console=silent())
    assert one.found.scores[3] < 0
    with pytest.raises(DataError, match="no class of this name"):
        explain(texts[0], ["the film was good"], ExplainSettings(target="ugly"), console=silent())


def test_rows_that_are_not_explained_are_said_to_be_left(
    texts: tuple[Path, Path, list[int]], capsys: pytest.CaptureFixture[str]
) -> None:
    assert len(explain(texts[0], [str(texts[1])], ExplainSettings(rows=2, method="ablation"))) == 2
    assert "only the first 2 rows" in capsys.readouterr().out


def test_mistakes_are_named(
    texts: tuple[Path, Path, list[int]], clicks: tuple[Path, Path, list[int]], tmp_path: Path
) -> None:
    with pytest.raises(RecipeError, match="no such method"):
        explain(texts[0], ["x"], ExplainSettings(method="magic"), console=silent())
    with pytest.raises(RecipeError, match="there is nothing"):
        explain(clicks[0], [str(clicks[1])], ExplainSettings(method="integrated-gradients"), console=silent())
    import shutil

    with pytest.raises(ArtifactError, match="stands in none"):
        name_suspects(shutil.copytree(texts[0], tmp_path / "model"), console=silent())


def test_numbers_are_explained_in_their_own_unit(tmp_path: Path) -> None:
    layers = {"layers": [{"dense": 16, "activation": "relu"}, {"dense": "auto"}]}
    recipe = {"task": "tabular-regression", "data": {"source": "diabetes"}, "model": layers, "train": {"epochs": 20}}
    run = tunewright.run({**recipe, "name": "numbers"}, runs=tmp_path, console=silent())
    (one,) = explain(run.stages["pretrain"].folder / "model", ["diabetes"], ExplainSettings(rows=1), console=silent())
    assert one.found.converged
    everything = one.question.explained.value(torch.ones(1, 10, dtype=torch.bool))
    nothing = one.question.explained.value(torch.zeros(1, 10, dtype=torch.bool))
    assert one.found.scores.sum() == pytest.approx(float(everything - nothing), rel=0.06, abs=0.1)
    assert 25 < float(everything) < 350


def test_a_user_that_has_only_a_vector_is_refused(tmp_path: Path) -> None:
    rows = "".join(f"u{user},i{item}\n" for user in range(20) for item in range(user % 5, 12, 2))
    (tmp_path / "rows.csv").write_text("user,item\n" + rows)
    recipe = {
        "name": "vectors",
        "task": "item-recommendation",
        "data": {"source": "rows.csv"},
        "model": {"backbone": "factors"},
        "train": {"epochs": 2},
    }
    run = tunewright.run(recipe, runs=tmp_path / "runs", base=tmp_path, console=silent())
    (stage,) = run.stages.values()
    with pytest.raises(ArtifactError, match="a vector for each user"):
        explain(stage.folder / "model", ['{"user": "u1"}'], console=silent())
    assert isinstance(load_model(stage.folder / "model"), Model)
