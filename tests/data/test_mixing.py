"""Several sources of texts as one: who is read how often, what is numbered how, and what does not fit together."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tunewright.console import silent
from tunewright.data.batches.mixing import MixedExamples, mixed
from tunewright.data.batches.packing import pack
from tunewright.data.batches.sampler import Batches
from tunewright.data.prepare.prepare import prepare
from tunewright.errors import DataError, RecipeError
from tunewright.recipe.schema import Data
from tunewright.run_recipe import run

CONTEXT = 7


def three_sources() -> MixedExamples:
    """80, 40 and 24 rows of eight tokens; the tokens of a source are of its own hundred."""
    documents = [
        np.full(8, 100 * source + place % 100) for source, size in enumerate((80, 40, 24)) for place in range(size)
    ]
    packed = pack(documents, torch.arange(1, len(documents) + 1), CONTEXT)
    return mixed(packed, [1, 81, 121], {"a": 1.0, "b": 0.5, "c": 2.5}, seed=3)


def read_in(examples: MixedExamples, epochs: int) -> np.ndarray:
    """[examples]: how often each was read."""
    found = np.zeros(len(examples.examples), np.int64)
    for epoch in range(epochs):
        chosen, _ = examples._chosen(np.arange(len(examples)), epoch)
        np.add.at(found, chosen, 1)
    return found


def test_each_source_is_read_by_its_weight() -> None:
    examples = three_sources()
    assert examples.counts.tolist() == [80, 20, 60] and len(examples) == 160
    assert examples.starts == (0, 80, 120, 144)
    once, twice = read_in(examples, 1), read_in(examples, 2)
    assert (once[:80] == 1).all() and once[80:120].sum() == 20 and set(once[120:]) == {2, 3}
    # In two epochs each row of the second source once, each of the third five times.
    assert (twice[:80] == 2).all() and (twice[80:120] == 1).all() and (twice[120:] == 5).all()


def test_batches_hold_what_was_chosen() -> None:
    examples = three_sources()
    for epoch in range(3):
        seen = [batch for step in Batches(examples=examples, batch_size=16, seed=0).steps(epoch) for batch in step]
        ids = torch.cat([batch.ids for batch in seen])
        assert sorted(ids.tolist()) == list(range(160))
        for batch in seen:
            source = np.searchsorted(np.cumsum(examples.counts), batch.ids.numpy(), side="right")
            # A later pass cuts the rows elsewhere, so that the last row of a source may reach into the next.
            of_tokens = batch.named["input_ids"][:, 0].numpy() // 100
            assert (of_tokens == source).all()
    first = [
        batch.named["input_ids"]
        for step in Batches(examples=examples, batch_size=16, seed=0).steps(1)
        for batch in step
    ]
    second = [
        batch.named["input_ids"]
        for step in Batches(examples=examples, batch_size=16, seed=0).steps(1, start=4)
        for batch in step
    ]
    assert all(torch.equal(one, other) for one, other in zip(first[4:], second, strict=True))


@pytest.fixture
def place(tmp_path: Path) -> Path:
    (tmp_path / "web.txt").write_text("".join(f"a page of the web, the {i}th\n" for i in range(200)))
    books = [{"body": f"chapter {i} of a book", "year": 1900 + i} for i in range(60)]
    (tmp_path / "books.jsonl").write_text("\n".join(map(json.dumps, books)))
    (tmp_path / "parts").mkdir()
    return tmp_path


def data_of(**changes: Any) -> dict[str, Any]:
    mix = [{"source": "books.jsonl", "input": "body", "weight": 2}]
    return {"source": "web.txt", "input": "text", "mix": mix, **changes}


def test_rows_are_numbered_on_and_say_where_they_are_from(place: Path) -> None:
    prepared = prepare(Data(**data_of(labelled=False)), seed=0, target_kind=None, base=place)
    rows = [row for split in ("train", "valid", "test") for row in prepared.table(split).to_pylist()]
    assert sorted(row["_row"] for row in rows) == list(range(1, 261))
    assert {row["source"] for row in rows if row["_row"] <= 200} == {"web.txt"}
    assert {row["text"][:7] for row in rows if row["_row"] > 200} == {"chapter"}
    limited = data_of(labelled=False, limit=50, mix=[{"source": "books.jsonl", "input": "body", "limit": 10}])
    assert prepare(Data(**limited), seed=0, target_kind=None, base=place).manifest.used == 60
    # Another second file is another mix.
    (place / "books.jsonl").write_text(
        (place / "books.jsonl").read_text() + "\n" + json.dumps({"body": "new", "year": 1})
    )
    assert prepare(Data(**data_of(labelled=False)), seed=0, target_kind=None, base=place).manifest.used == 261


def test_a_model_learns_from_a_mix(place: Path) -> None:
    recipe = {
        "task": "language-modeling",
        "data": data_of(),
        "model": {
            "backbone": {"gpt": {"layers": 1, "width": 16, "heads": 2, "context": 16}},
            "tokenizer": "characters",
        },
        "train": {"epochs": 1},
        "eval": {"resamples": 100, "slices": ["source"]},
    }
    done = run(recipe, base=place, runs=place / "runs", console=silent()).stages["pretrain"].summary
    page = (place / "runs").glob("*/report.html")
    assert "What an epoch reads of each source" in next(page).read_text()
    web, books = done["texts"]["mix"]
    assert (web["source"], books["source"]) == ("web.txt", "books.jsonl")
    assert (web["read"], books["read"]) == (web["rows"], 2 * books["rows"])
    assert done["texts"]["examples"] == web["read"] + books["read"]
    assert {entry["value"] for entry in done["evaluation"]["slices"]} == {"web.txt", "books.jsonl"}


@pytest.mark.parametrize(
    ("data", "problem"),
    [
        (data_of(input=None), "reads one column of texts"),
        (data_of(mix=[{"source": "books.jsonl"}]), "no column 'text'"),
        (data_of(mix=[{"source": "web.txt"}]), "occurs twice"),
        (data_of(mix=[{"source": "nowhere.txt"}]), "no such file"),
        (data_of(mix=[{"source": "imdb"}]), "divided in different ways|no such file"),
    ],
)
def test_what_does_not_fit_together(place: Path, data: dict[str, Any], problem: str) -> None:
    with pytest.raises((DataError, RecipeError), match=problem):
        prepare(Data(**data, labelled=False), seed=0, target_kind=None, base=place)


def test_only_a_language_model_learns_from_a_mix(place: Path) -> None:
    recipe = {"task": "masked-language-modeling", "data": data_of()}
    with pytest.raises(RecipeError, match="only a language model learns from a mix"):
        run(recipe, base=place, runs=place / "runs", console=silent())
