"""What a stage did elsewhere: questions with choices, log probabilities against plain ones, forgetting that shows."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tunewright import load_model
from tunewright.commands.evaluate import evaluate_run
from tunewright.console import silent
from tunewright.data.text.multiple_choice import Question, question, recognise_questions
from tunewright.errors import DataError, RecipeError
from tunewright.run_recipe import run
from tunewright.tasks.language_model.choice_scoring import choice_scores, per_byte


@pytest.mark.parametrize(
    ("choices", "answer", "place"),
    [
        (["red", "blue"], "blue", 1),
        (["red", "blue"], "B", 1),
        (["red", "blue"], "0", 0),
        (["red", "blue"], 1.0, 1),
        ('["3", "1"]', "3", 0),
        (["B", "C"], "C", 1),
    ],
)
def test_a_question_names_its_answer_in_three_ways(choices: Any, answer: Any, place: int) -> None:
    assert question("which?", choices, answer).answer == place


@pytest.mark.parametrize(
    ("asked", "choices", "answer", "problem"),
    [
        ("", ["a", "b"], "a", "question is empty"),
        ("q", ["a"], "a", "two or more"),
        ("q", ["a", "a"], "a", "two or more"),
        ("q", "a, b", "a", "no list"),
        ("q", ["a", "b"], "c", "not one of the choices"),
        ("q", ["a", "b"], None, "not said"),
        ("q", ["1", "0"], "1", "names one choice and is the letter or number of another"),
        ("q", ["B", "A"], "B", "names one choice and is the letter or number of another"),
    ],
)
def test_a_question_that_cannot_be_judged(asked: str, choices: Any, answer: Any, problem: str) -> None:
    with pytest.raises(ValueError, match=problem):
        question(asked, choices, answer)


def test_questions_are_seen_by_their_columns() -> None:
    assert recognise_questions(["prompt", "choices", "answer", "subject"]) == ("prompt", "choices", "answer")
    assert recognise_questions(["question", "answer"]) is None


PLANTS = ("rose", "fern", "moss", "reed", "iris", "sage")
COLOURS = ("red", "blue", "white", "grey")


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Texts about plants of a colour, texts of numbers, and questions about the colours."""
    folder = tmp_path_factory.mktemp("beside")
    draw = random.Random(0)
    colour_of = {plant: COLOURS[index % len(COLOURS)] for index, plant in enumerate(PLANTS)}
    plants = [" ".join(f"{plant} is {colour_of[plant]}." for plant in draw.choices(PLANTS, k=4)) for _ in range(300)]
    numbers = [" ".join(str(draw.randrange(100)) for _ in range(12)) for _ in range(200)]
    (folder / "plants.txt").write_text("\n".join(plants))
    (folder / "numbers.txt").write_text("\n".join(numbers))
    quiz = [
        {"question": f"{plant} is", "choices": [f"{c}." for c in COLOURS], "answer": f"{colour_of[plant]}."}
        for plant in PLANTS
    ]
    (folder / "quiz.jsonl").write_text("\n".join(map(json.dumps, quiz)))
    return folder


def recipe_for(**changes: Any) -> dict[str, Any]:
    plants = {"source": "plants.txt", "split": {"valid": 0.1, "test": 0.1}}
    recipe: dict[str, Any] = {
        "task": "language-modeling",
        "data": {"source": "numbers.txt"},
        "model": {
            "backbone": {"gpt": {"layers": 1, "width": 48, "heads": 2, "context": 32}},
            "tokenizer": "characters",
        },
        "train": {"epochs": 2, "batch_size": 8, "lr": 1e-2},
        "hardware": {"precision": "float32"},
        "eval": {"resamples": 200},
        "stages": [
            {
                "pretrain": {
                    "data": plants,
                    "train": {"epochs": 6},
                    "eval": {"beside": {"quiz": {"source": "quiz.jsonl"}}},
                }
            },
            {"finetune": {"eval": {"beside": {"plants": plants, "quiz": {"source": "quiz.jsonl"}}}}},
        ],
    }
    return {**recipe, **changes}


@pytest.fixture(scope="module")
def trained(place: Path) -> Any:
    return run(recipe_for(), base=place, runs=place / "runs", console=silent())


def test_what_was_learned_and_what_was_forgotten(trained: Any) -> None:
    (quiz,) = trained.stages["pretrain"].summary["evaluation"]["other_data"]
    assert (quiz["kind"], quiz["rows"], quiz["metrics"]["accuracy"]["now"]["value"]) == ("questions", 6, 1.0)
    assert "before" not in quiz["metrics"]["accuracy"]
    assert quiz["guesses"] == {
        "chance": 0.25,
        "the longest choice": pytest.approx(1 / 6),
        "always the same place": pytest.approx(2 / 6),
    }
    plants, after = trained.stages["finetune"].summary["evaluation"]["other_data"]
    bits = plants["metrics"]["bits_per_byte"]
    assert (plants["kind"], plants["split"], plants["rows"]) == ("texts", "test", 30)
    assert bits["verdict"] == "worse" and bits["difference"]["low"] > 0
    # What it was before is what the stage before measured on the same rows.
    measured = trained.stages["pretrain"].summary["evaluation"]["metrics"]["bits_per_byte"]["value"]
    assert bits["before"]["value"] == pytest.approx(measured, rel=1e-6)
    assert after["metrics"]["accuracy"]["before"]["value"] == 1.0


def test_the_report_and_another_evaluation_say_so(trained: Any) -> None:
    page = trained.report.read_text()
    assert "Before and after, on other data" in page and "worse than before the stage" in page
    summary = trained.stages["finetune"].summary["evaluation"]["other_data"]
    evaluate_run(trained.folder, [], console=silent())
    again = json.loads((trained.folder / "finetune" / "summary.json").read_text())["evaluation"]["other_data"]
    assert again == summary


def test_scores_are_log_probabilities(trained: Any) -> None:
    model = load_model(trained.folder / "pretrain" / "model")
    encoder: Any = model.preprocessor.inputs
    asked = [Question("rose is", ["red.", "grey.", "white and blue."], 0), Question("fern is", ["blue.", "red."], 0)]
    scores = choice_scores(model.network, encoder, asked)
    assert scores.shape == (2, 3) and np.isneginf(scores[1, 2])
    for row, entry in enumerate(asked):
        for column, choice in enumerate(entry.choices):
            text = f"{entry.text} {choice}"
            ids = [*encoder.begin, *encoder.tokenizer(text, add_special_tokens=False)["input_ids"]]
            with torch.no_grad():
                logits: Any = model.network({"input_ids": torch.tensor([ids])})
            chances = logits[0].log_softmax(1)
            wanted = sum(float(chances[at - 1, ids[at]]) for at in range(len(ids) - len(choice) - 1, len(ids)))
            assert scores[row, column] == pytest.approx(wanted, abs=1e-4)
    assert per_byte(scores, asked)[0, 2] == pytest.approx(scores[0, 2] / 15)


def test_a_model_that_talks_is_asked_in_its_own_way(place: Path) -> None:
    answers = [{"prompt": f"the colour of {p}?", "completion": c} for p, c in zip(PLANTS * 20, COLOURS * 30)]
    (place / "answers.jsonl").write_text("\n".join(map(json.dumps, answers)))
    quiz = [{"prompt": f"the colour of {p}?", "choices": COLOURS, "answer": 0} for p in PLANTS]
    (place / "asked.jsonl").write_text("\n".join(map(json.dumps, quiz)))
    model = {
        "backbone": {"gpt": {"layers": 1, "width": 16, "heads": 2, "context": 96}},
        "tokenizer": {"bpe": {"vocabulary": 262}},
    }
    recipe = {
        "task": "supervised-fine-tuning",
        "data": {"source": "answers.jsonl"},
        "model": model,
        "train": {"epochs": 1},
        "eval": {"resamples": 100, "beside": {"asked": {"source": "asked.jsonl"}}},
    }
    done = run(recipe, base=place, runs=place / "runs", console=silent())
    (found,) = done.stages["pretrain"].summary["evaluation"]["other_data"]
    assert found["rows"] == 6 and found["metrics"]["accuracy"]["now"]["value"] is not None


@pytest.mark.parametrize(
    ("beside", "error", "problem"),
    [
        ({"x": {"source": "wrong.jsonl"}}, DataError, "row 2"),
        ({"x": {"source": "many.csv"}}, DataError, "neither one column of texts nor questions"),
        ({"x": {"source": "nowhere.txt"}}, DataError, "no such file"),
    ],
)
def test_what_cannot_be_measured_is_said_before_the_training(
    place: Path, tmp_path: Path, beside: Any, error: type[Exception], problem: str
) -> None:
    good = {"question": "q", "choices": ["a", "b"], "answer": "a"}
    (place / "wrong.jsonl").write_text(json.dumps(good) + "\n" + json.dumps({**good, "answer": "c"}))
    (place / "many.csv").write_text("one,two\n" + "".join(f"this is {i},that is {i}\n" for i in range(40)))
    recipe = recipe_for(eval={"beside": beside}, stages=["pretrain"])
    with pytest.raises(error, match=problem):
        run(recipe, base=place, runs=tmp_path / "runs", console=silent())
    assert not (tmp_path / "runs").exists()


def test_only_models_that_write_are_measured_on_texts(place: Path, tmp_path: Path) -> None:
    recipe = {
        "task": "image-classification",
        "data": {"source": "digits"},
        "eval": {"beside": {"x": {"source": "plants.txt"}}},
    }
    with pytest.raises(RecipeError, match="only a language model"):
        run(recipe, base=place, runs=tmp_path / "runs", console=silent())
