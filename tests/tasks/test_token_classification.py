"""Token classification: entities as seqeval finds them, tags and spans alike, whole runs from CoNLL files and from spans."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch
from seqeval.metrics import f1_score, precision_score, recall_score
from seqeval.metrics.sequence_labeling import get_entities

from tiny import tiny_bert, tiny_tokenizer
from tunewright.commands.init import write_recipe
from tunewright.console import silent
from tunewright.data.manifest import Rejects
from tunewright.errors import DataError, UserError
from tunewright.evaluation.metrics import METRICS
from tunewright.inference.model import load_model, predict
from tunewright.run_recipe import run
from tunewright.runs.summary.stage import read_summary
from tunewright.tasks.base.task import Preprocessor
from tunewright.tasks.registry import get_task
from tunewright.tasks.token_classification import (
    IGNORED,
    EntityEvaluation,
    EntityTarget,
    TaggedEncoder,
    TaggedRequest,
    entities_of_tags,
    find_entities,
)

# What the sentences of `sentence` are about: one word after "the", or two words that begin with "very" or "quite".
KINDS = {"film": "WORK", "book": "WORK", "room": "PLACE"}
SETTINGS: dict[str, Any] = {
    "model": {"backbone": "tiny"},
    "tune": {"freeze": "none"},
    "train": {"epochs": 8, "lr": 0.003, "batch_size": 16, "schedule": "constant", "warmup": 0},
    "eval": {"resamples": 100},
    "hardware": {"threads": 1, "precision": "float32"},
}


def sentence(draw: np.random.Generator) -> list[tuple[str, str]]:
    """Return words with their tags in IOB2."""
    found: list[tuple[str, str]] = []
    for _ in range(int(draw.integers(1, 4))):
        thing = str(draw.choice(list(KINDS)))
        found += [("the", "O"), (thing, f"B-{KINDS[thing]}"), ("was", "O")]
        found += [(str(draw.choice(["very", "quite"])), "B-PRAISE"), (str(draw.choice(["good", "warm"])), "I-PRAISE")]
    return found


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a tiny BERT, a CoNLL file, and the same sentences as texts with spans."""
    folder = tmp_path_factory.mktemp("entities")
    tiny_bert(folder / "tiny", layers=1, initializer_range=0.2)
    draw = np.random.default_rng(0)
    sentences = [sentence(draw) for _ in range(160)]
    (folder / "tags.conll").write_text(
        "\n\n".join("\n".join(f"{word}\t{tag}" for word, tag in words) for words in sentences) + "\n"
    )
    lines: list[str] = []
    for words in sentences:
        starts = np.cumsum([0, *(len(word) + 1 for word, _ in words)])
        spans = [
            {"start": int(starts[start]), "end": int(starts[end] - 1), "label": kind}
            for start, end, kind in entities_of_tags([tag for _, tag in words])
        ]
        lines.append(json.dumps({"text": " ".join(word for word, _ in words), "entities": spans}))
    (folder / "spans.jsonl").write_text("\n".join(lines))
    return folder


@pytest.mark.parametrize("prefixes", ["BI", "BIES", "BILU"])
def test_entities_are_those_of_seqeval_whatever_the_tags(prefixes: str) -> None:
    draw = np.random.default_rng(1)
    tags = ["O", *(f"{prefix}-{kind}" for prefix in prefixes for kind in ("PER", "LOC"))]
    for _ in range(400):
        found = [str(tag) for tag in draw.choice(tags, int(draw.integers(1, 9)))]
        iobes = [{"L": "E", "U": "S"}.get(tag[0], tag[0]) + tag[1:] for tag in found]
        assert entities_of_tags(found) == [(start, end + 1, kind) for kind, start, end in get_entities(iobes)], found


def test_metrics_are_those_of_seqeval() -> None:
    draw = np.random.default_rng(2)
    tags = ["O", "O", "B-PER", "I-PER", "B-LOC", "I-LOC"]
    truth, guess = (
        [[str(tag) for tag in draw.choice(tags, int(size))] for size in np.random.default_rng(3).integers(1, 12, 200)]
        for _ in range(2)
    )
    outputs = [
        (len(set(entities_of_tags(a)) & set(entities_of_tags(b))), len(entities_of_tags(b)))
        for a, b in zip(truth, guess)
    ]
    target = np.array([len(entities_of_tags(row)) for row in truth])
    for name, reference in {
        "entity_f1": f1_score,
        "entity_precision": precision_score,
        "entity_recall": recall_score,
    }.items():
        assert METRICS[name].value(np.array(outputs), target) == pytest.approx(reference(truth, guess), abs=1e-12)


def test_metrics_without_entities() -> None:
    nothing, none = np.zeros((3, 2)), np.zeros(3, int)
    assert np.isnan(METRICS["entity_f1"].value(nothing, none))
    assert METRICS["entity_f1"].value(nothing, none + 1) == 0
    assert METRICS["entity_precision"].value(nothing, none + 1) == 0
    assert METRICS["entity_recall"].value(np.array([[0, 2.0]] * 3), none) == 0


def encoder(*, words: bool, longest: int = 64) -> TaggedEncoder:
    return TaggedEncoder(
        columns=["it"], max_length=longest, limit=64, tokenizer=tiny_tokenizer(), words=words, passages=False
    )


TARGET = EntityTarget(column="to", classes=["O", "B-A", "I-A", "B-B", "I-B"])


def table(cell: Any, entities: list[Any]) -> pa.Table:
    return pa.table({"it": [cell], "to": [entities], "_row": pa.array([7], pa.int64())})


def test_tags_lie_on_the_first_token_of_each_word() -> None:
    # [CLS] the [UNK] very good [SEP]: "good-bad" is one word of three tokens, of which the first has the tag.
    data = table(["the", "good-bad", "very", "good"], ["O", "B-A", "B-B", "I-B"])
    found = encoder(words=True).examples(data, TARGET.encode(data))
    assert found.tags is not None and found.inexact == 0
    assert found.tags.values.tolist() == [IGNORED, 0, 1, IGNORED, IGNORED, 3, 4, IGNORED]


def test_spans_lie_on_all_of_their_tokens() -> None:
    text = "the very good, warm room"
    spans = [{"start": 4, "end": 13, "label": "B"}, {"start": 15, "end": 17, "label": "A"}]
    data = table(text, spans)
    found = encoder(words=False).examples(data, TARGET.encode(data))
    assert found.tags is not None and found.tags.values.tolist() == [IGNORED, 0, 3, 4, 0, 1, 0, IGNORED]
    assert found.inexact == 1  # "wa" is no token
    batch = found.batch(torch.tensor([0]))
    assert batch.target.shape == batch.named["input_ids"].shape == (1, 8)


def test_what_is_cut_counts_as_missed(place: Path) -> None:
    data = table(["film"] * 10, ["B-A"] * 10)
    inputs = encoder(words=True, longest=5)
    found = inputs.examples(data, TARGET.encode(data))
    assert found.cut == 1 and len(found) == 1
    task = get_task("token-classification")

    class Network(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = torch.nn.Parameter(torch.zeros(1))

        def forward(self, inputs: dict[str, torch.Tensor]) -> torch.Tensor:
            return torch.eye(5)[1].expand(*inputs["input_ids"].shape, 5) * 9 + self.weight

    preprocessor = Preprocessor(task=task, inputs=inputs, target=TARGET)
    outputs, target = EntityEvaluation().outputs(Network(), None, preprocessor, data)  # pyright: ignore
    assert outputs.tolist() == [[3, 3]] and target.tolist() == [10]
    assert len(find_entities(Network(), preprocessor, data)[0]) == 3  # pyright: ignore


@pytest.mark.parametrize(
    ("cell", "entities", "said"),
    [
        (["the"], ["PER"], "neither O nor a type"),
        ("the", [{"start": 0, "end": 9, "label": "A"}], "ends after the end"),
        ("the", [{"start": 2, "end": 2, "label": "A"}], "is empty"),
        ("the film", [{"start": 0, "end": 5, "label": "A"}, {"start": 4, "end": 8, "label": "B"}], "overlap"),
        ("the", [{"start": 0, "end": 2, "label": "C"}], "not in the training rows"),
        ("the", [{"from": 0}], "not a span"),
    ],
)
def test_entities_that_cannot_be_used_are_named_with_their_row(cell: Any, entities: list[Any], said: str) -> None:
    data = table(cell, entities)
    with pytest.raises(DataError, match=said) as raised:
        encoder(words=isinstance(cell, list)).examples(data, TARGET.encode(data))
    assert "row 7" in str(raised.value)


@pytest.mark.parametrize("source", ["tags.conll", "spans.jsonl"])
def test_a_model_learns_entities_and_finds_them_in_new_texts(
    place: Path, tmp_path: Path, source: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    recipe = {"name": "it", "task": "token-classification", **SETTINGS, "data": {"source": str(place / source)}}
    recipe["model"] = {"backbone": str(place / "tiny")}
    result = run(recipe, console=silent())
    summary = read_summary(result.stages["finetune"].folder)
    evaluation = summary.evaluation
    assert evaluation is not None and evaluation.metrics["entity_f1"].value > 0.95
    assert [entry.label for entry in evaluation.labels or []] == ["PLACE", "PRAISE", "WORK"]
    assert evaluation.baselines[0].metrics["entity_f1"].value > 0.5
    folder = result.stages["finetune"].folder / "model"
    (answer,) = predict(folder, "the room was very good")
    assert [(entry["text"], entry["label"]) for entry in answer["entities"]] == [
        ("room", "PLACE"),
        ("very good", "PRAISE"),
    ]
    report = (result.folder / "report.html").read_text(encoding="utf-8")
    assert "PRAISE" in report and "entity F1" in report
    target = load_model(folder).preprocessor.target
    assert target is not None and len(target.classes or []) == 7


def test_requests_in_words() -> None:
    request, rejects = TaggedRequest(encoder(words=True)), Rejects()
    rows = [request.parse(text) for text in ('["the", "film"]', "the film, good.", '{"it": ["a", "b"]}')]
    found = request.table([(index, row) for index, row in enumerate(rows, 1) if row is not None], rejects)
    assert found["it"].to_pylist() == [["the", "film"], ["the", "film", ",", "good", "."], ["a", "b"]]


def test_init_writes_a_recipe_for_a_conll_file(place: Path, tmp_path: Path) -> None:
    out = tmp_path / "recipe.yaml"
    write_recipe("token-classification", str(place / "tags.conll"), out)
    assert "entity_f1" in out.read_text(encoding="utf-8")


def test_a_file_without_entities_is_refused_before_training(place: Path, tmp_path: Path) -> None:
    (tmp_path / "none.conll").write_text("the O\nfilm O\n\n" * 30)
    recipe = {"name": "it", "task": "token-classification", **SETTINGS}
    recipe |= {"data": {"source": str(tmp_path / "none.conll")}, "model": {"backbone": str(place / "tiny")}}
    with pytest.raises(UserError, match="no entity"):
        run(recipe, runs=tmp_path / "runs", console=silent())
