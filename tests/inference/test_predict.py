"""`tunewright predict`: whatever a person may give it, in pieces, and nothing of the training is loaded."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

import tunewright
from tiny import texts, tiny_bert
from tunewright.commands.predict import print_predictions
from tunewright.console import silent
from tunewright.errors import DataError
from tunewright.inference import read_input as given
from tunewright.inference.model import Model, load_model
from tunewright.run_recipe import run


def typed(text: str) -> io.TextIOWrapper:
    """Standard input with that text."""
    return io.TextIOWrapper(io.BytesIO(text.encode()), encoding="utf-8")


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("predict")
    tiny_bert(folder / "tiny", layers=1)
    texts(folder / "texts.jsonl")
    rows = [json.loads(line) for line in (folder / "texts.jsonl").read_text().splitlines()]
    pairs = [{"first": row["text"], "second": row["text"][:9], "label": row["label"]} for row in rows]
    (folder / "pairs.jsonl").write_text("".join(json.dumps(pair) + "\n" for pair in pairs))
    table = "".join(f"{i % 7},{'ab'[i % 2]},{i % 7 + i % 2}\n" for i in range(80))
    (folder / "table.csv").write_text("size,kind,price\n" + table)
    return folder


def trained(place: Path, name: str, **recipe: Any) -> Path:
    """The folder of a model that was trained for an epoch."""
    runs = place / "runs"
    if not (runs / name).exists():
        plain = {"name": name, "train": {"epochs": 1}, "eval": {"resamples": 100}}
        run({**plain, **recipe}, base=place, runs=runs, console=silent())
    (model,) = (runs / name).glob("*/model")
    return model


@pytest.fixture(scope="module")
def of_texts(place: Path) -> Path:
    text = {"task": "text-classification", "data": {"source": "texts.jsonl"}, "model": {"backbone": "tiny"}}
    return trained(place, "texts", **text, tune={"freeze": "none"})


@pytest.fixture(scope="module")
def of_pairs(place: Path) -> Path:
    data = {"source": "pairs.jsonl", "input": ["first", "second"]}
    return trained(
        place, "pairs", task="text-classification", data=data, model={"backbone": "tiny"}, tune={"freeze": "none"}
    )


@pytest.fixture(scope="module")
def of_rows(place: Path) -> Path:
    return trained(place, "rows", task="tabular-regression", data={"source": "table.csv", "target": "price"})


@pytest.fixture(scope="module")
def of_pictures(place: Path) -> Path:
    return trained(place, "pictures", task="image-classification", data={"source": "digits", "limit": 200})


def printed(model: Path, data: str, capsys: pytest.CaptureFixture[str]) -> list[dict[str, Any]]:
    print_predictions(model, data)
    return [json.loads(line) for line in capsys.readouterr().out.splitlines()]


def test_a_bare_text(of_texts: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (found,) = printed(of_texts, "the film was good", capsys)
    assert set(found) == {"prediction", "confidence", "probabilities"} and set(found["probabilities"]) == {
        "good",
        "bad",
    }
    assert found["confidence"] == found["probabilities"][found["prediction"]]
    model = load_model(of_texts)
    for same in (["the film was good"], pa.table({"text": ["the film was good"]}), '{"text": "the film was good"}'):
        assert model.predict(same) == [found]
    for text in ("[UNK] in brackets", "{braces", '"quoted', "a/b or c.d, what next?", "x" * 5000, "书 很好"):
        assert len(model.predict(text)) == 1, text
    assert tunewright.predict(of_texts, "the film was good") == [found]


@pytest.mark.parametrize("name", ["texts.csv", "nowhere/texts", "pictures.png", "notes.txt"])
def test_a_name_that_looks_like_a_file_is_no_text(of_texts: Path, name: str) -> None:
    with pytest.raises(DataError, match="no such file"):
        load_model(of_texts).predict(name)


def test_lines_of_standard_input(
    of_texts: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    lines = ["the film was good", "", '{"text": "a dull book", "other": 1}', '["a warm room"]', "[not json"]
    monkeypatch.setattr(sys, "stdin", typed("\ufeff" + "\n".join(lines) + "\n"))
    found = printed(of_texts, "-", capsys)
    assert [entry["row"] for entry in found] == [1, 3, 4, 5]
    plain = load_model(of_texts).predict(["the film was good", "a dull book", "a warm room", "[not json"])
    assert [entry["prediction"] for entry in found] == [entry["prediction"] for entry in plain]
    assert [entry["confidence"] for entry in found] == pytest.approx([entry["confidence"] for entry in plain], abs=1e-6)


def test_files_of_texts(of_texts: Path, place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = printed(of_texts, str(place / "texts.jsonl"), capsys)
    assert [entry["row"] for entry in rows] == list(range(1, 121))
    known = [json.loads(line)["text"] for line in (place / "texts.jsonl").read_text().splitlines()]
    (place / "texts.txt").write_text("\n".join(known))
    (place / "other.csv").write_text("review\n" + "\n".join(known))  # one column: it is clear which is meant
    for other in ("texts.txt", "other.csv"):
        again = printed(of_texts, str(place / other), capsys)
        assert [entry["prediction"] for entry in again] == [entry["prediction"] for entry in rows]
    with pytest.raises(DataError, match="no column 'text'"):
        printed(of_texts, str(place / "pairs.jsonl"), capsys)


def test_pairs(
    of_pairs: Path, place: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    model = load_model(of_pairs)
    found = model.predict([("a good film", "a good"), ["a bad film", "a bad"]])
    assert [len(printed(of_pairs, str(place / "pairs.jsonl"), capsys)), len(found)] == [120, 2]
    (single,) = model.predict('["a good film", "a good"]')
    assert single["prediction"] == found[0]["prediction"]
    monkeypatch.setattr(sys, "stdin", typed('["a", "b"]\nno pair\n{"first": "a", "second": "b"}\n'))
    print_predictions(of_pairs, "-")
    captured = capsys.readouterr()
    assert [json.loads(line)["row"] for line in captured.out.splitlines()] == [1, 3]
    assert "1 skipped" in captured.err and "line 2: no pair" in captured.err and '["first", "second"]' in captured.err
    with pytest.raises(DataError, match="pairs of texts"):
        model.predict(["only one"])
    with pytest.raises(DataError, match="no such file"):
        model.predict("just a text")


def test_rows(of_rows: Path, place: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    model = load_model(of_rows)
    (found,) = printed(of_rows, '{"size": 3, "kind": "a"}', capsys)
    assert found == model.predict(pa.table({"size": [3.0], "kind": ["a"]}))[0]
    assert len(printed(of_rows, str(place / "table.csv"), capsys)) == 80
    (place / "odd.csv").write_text("size,kind\n1,a\nlarge,b\n,a\n2,zebra\n")
    print_predictions(of_rows, str(place / "odd.csv"))
    captured = capsys.readouterr()
    assert [json.loads(line)["row"] for line in captured.out.splitlines()] == [1, 3, 4]
    assert "size is not a number" in captured.err and "row 2" in captured.err and "large" in captured.err
    with pytest.warns(UserWarning, match="1 skipped: size is not a number"):
        assert len(model.predict(str(place / "odd.csv"))) == 3
    with pytest.raises(DataError, match="lacks 1 of the model's input columns: kind"):
        model.predict('{"size": 3}')
    with pytest.raises(DataError, match="does not read such texts"):
        model.predict(["a text"])
    monkeypatch.setattr(sys, "stdin", typed('{"size": "4", "kind": "b"}\nplain text\n'))
    print_predictions(of_rows, "-")
    captured = capsys.readouterr()
    assert len(captured.out.splitlines()) == 1 and "not a JSON object" in captured.err


def test_pictures(
    of_pictures: Path, place: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from PIL import Image

    draw = np.random.default_rng(0)
    for name in ("a.png", "b.png"):
        Image.fromarray(draw.integers(0, 255, (8, 8), np.uint8)).save(place / name)
    (place / "broken.png").write_bytes(b"no picture")
    (one,) = printed(of_pictures, str(place / "a.png"), capsys)
    assert one["file"] == str(place / "a.png") and set(one) == {"file", "prediction", "confidence", "probabilities"}
    monkeypatch.setattr(sys, "stdin", typed("\n".join(str(place / name) for name in ("a.png", "broken.png", "b.png"))))
    print_predictions(of_pictures, "-")
    captured = capsys.readouterr()
    found = [json.loads(line) for line in captured.out.splitlines()]
    assert [Path(entry["file"]).name for entry in found] == ["a.png", "b.png"] and found[0]["prediction"] == one[
        "prediction"
    ]
    assert "1 skipped" in captured.err and "broken.png" in captured.err
    with pytest.raises(DataError, match="cannot be read"):
        load_model(of_pictures).predict(str(place / "broken.png"))
    with pytest.raises(DataError, match="no such file"):
        load_model(of_pictures).predict("a text")


def test_memory_stays_flat_and_results_come_as_they_are_ready(
    of_texts: Path, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Lines are taken in pieces: the first results are there before the rest of the input is."""
    monkeypatch.setattr(given, "LINES", 4)
    monkeypatch.setattr(given, "ROWS", 50)
    model = load_model(of_texts)
    read = 0

    def lines() -> Any:
        nonlocal read
        for index in range(10):
            read += 1
            yield read, f"a good film {index}\n".encode()

    from tunewright.data.manifest import Rejects

    pieces = given._from_lines(lines(), model.preprocessor.request, Rejects())
    assert len(next(pieces).names) == 4 and read == 4
    sizes = [len(piece.names) for piece in given.read_input(str(place / "texts.jsonl"), model.preprocessor, Rejects())]
    assert sizes == [50, 50, 20]
    assert isinstance(model, Model)


HEAVY = "import sys, json; from tunewright.cli import main; sys.argv = ['tunewright', 'predict', *sys.argv[1:]]\ntry: main()\nfinally: print(json.dumps(sorted(m for m in sys.modules if m.split('.')[0] in ('sklearn', 'peft', 'optuna', 'matplotlib', 'torchvision', 'tunewright'))), file=sys.stderr)"


def test_nothing_of_the_training_is_loaded(of_texts: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", HEAVY, str(of_texts), "a good film"], capture_output=True, text=True, env={**os.environ}
    )
    assert done.returncode == 0, done.stderr
    loaded = set(json.loads(done.stderr.splitlines()[-1]))
    assert not any(name.startswith(("sklearn", "peft", "optuna", "matplotlib", "torchvision")) for name in loaded)
    assert (
        not {
            "tunewright.training.loop",
            "tunewright.training.optimizers.registry",
            "tunewright.pipeline.train.train_stage",
        }
        & loaded
    )
    assert "tunewright.report.page" not in loaded
