"""Exported files: opened by their own libraries, the same as the model on real rows of any number and length, for each task."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch

from tiny import texts, tiny_bert
from tunewright.cli import app
from tunewright.commands import export as exporting
from tunewright.commands.export import export
from tunewright.console import silent
from tunewright.errors import ArtifactError, RecipeError, RunFailed, UserError
from tunewright.models.exchange.gguf_file import turned, turned_back
from tunewright.run_recipe import run
from tunewright.runs.folder import read_json

SHORT = {"epochs": 1, "batch_size": 16}


def _digits(place: Path) -> dict[str, Any]:
    layers = [{"conv2d": 4}, "batch_norm", "relu", "max_pool", "flatten", {"dense": 10}]
    return {"task": "image-classification", "data": {"source": "digits", "limit": 300}, "model": {"layers": layers}}


def _recurrent(place: Path) -> dict[str, Any]:
    layers = [{"reshape": [8, 8]}, {"gru": 6, "bidirectional": True, "sequences": True}, {"lstm": 5}, {"dense": 10}]
    return {**_digits(place), "model": {"layers": ["flatten", *layers]}}


def _rows(place: Path) -> dict[str, Any]:
    lines = ["size,colour,price"] + [f"{n},{'red' if n % 3 else 'blue'},{n * 1.5 + n % 3}" for n in range(120)]
    (place / "rows.csv").write_text("\n".join(lines))
    return {"task": "tabular-regression", "data": {"source": "rows.csv", "target": "price"}}


def _texts(place: Path) -> dict[str, Any]:
    texts(place / "texts.jsonl")
    data = {"source": "texts.jsonl", "input": "text", "target": "label"}
    return {
        "task": "text-classification",
        "data": data,
        "model": {"backbone": str(tiny_bert(place / "bert"))},
        "tune": {"freeze": "none"},
    }


def _adapter(place: Path) -> dict[str, Any]:
    return {**_texts(place), "tune": {"adapter": "lora"}, "stages": ["finetune"]}


def _hidden(place: Path) -> dict[str, Any]:
    texts(place / "texts.jsonl")
    model = {"backbone": str(tiny_bert(place / "bert"))}
    return {"task": "masked-language-modeling", "data": {"source": "texts.jsonl", "input": "text"}, "model": model}


def _writer(place: Path) -> dict[str, Any]:
    draw = np.random.default_rng(0)
    (place / "texts.txt").write_text(
        "\n\n".join(" ".join(draw.choice(["red", "old", "cat", "sees", "a"], draw.integers(9, 30))) for _ in range(60))
    )
    model = {
        "backbone": {"gpt": {"layers": 1, "width": 32, "heads": 2}},
        "tokenizer": {"bpe": {"vocabulary": 270}},
        "max_length": 64,
    }
    return {"task": "language-modeling", "data": {"source": "texts.txt"}, "model": model}


def _talk(place: Path) -> dict[str, Any]:
    lines = [
        json.dumps(
            {"messages": [{"role": "user", "content": f"{a}+{b}?"}, {"role": "assistant", "content": str(a + b)}]}
        )
        for a in range(12)
        for b in range(8)
    ]
    (place / "sums.jsonl").write_text("\n".join(lines))
    model = {"backbone": {"gpt": {"layers": 1, "width": 32, "heads": 2}}, "tokenizer": {"bpe": {"vocabulary": 280}}}
    return {"task": "supervised-fine-tuning", "data": {"source": "sums.jsonl"}, "model": model}


def _liked(place: Path, kind: Any) -> dict[str, Any]:
    draw = np.random.default_rng(0)
    lines = ["user,item,time"] + [f"u{user},i{draw.integers(15)},{n}" for user in range(40) for n in range(8)]
    (place / "liked.csv").write_text("\n".join(lines))
    data = {"source": "liked.csv", "split": {"by": "within", "column": "user"}}
    return {"task": "item-recommendation", "data": data, "model": {"backbone": kind}}


def _clicks(place: Path) -> dict[str, Any]:
    draw = np.random.default_rng(0)
    lines = ["user,item,click"] + [
        f"u{draw.integers(20)},i{draw.integers(15)},{'yes' if draw.random() > 0.4 else 'no'}" for _ in range(300)
    ]
    (place / "clicks.csv").write_text("\n".join(lines))
    return {
        "task": "click-prediction",
        "data": {"source": "clicks.csv", "target": "click"},
        "model": {"backbone": "deepfm"},
    }


def _speech(place: Path, kind: Any) -> dict[str, Any]:
    draw = np.random.default_rng(0)
    lines = ["audio,text"]
    for number in range(24):
        soundfile.write(place / f"{number}.wav", draw.normal(0, 0.1, int(draw.integers(8000, 16000))), 16_000)
        lines.append(f"{number}.wav,{'ab' if number % 2 else 'ba'}")
    (place / "speech.csv").write_text("\n".join(lines))
    return {
        "task": "speech-recognition",
        "data": {"source": "speech.csv", "split": {"by": "random"}},
        "model": {"backbone": kind},
    }


CASES: dict[str, Any] = {
    "pictures": _digits,
    "recurrent": _recurrent,
    "rows": _rows,
    "texts": _texts,
    "adapter": _adapter,
    "hidden": _hidden,
    "writer": _writer,
    "talk": _talk,
    "clicks": _clicks,
    "factors": lambda place: _liked(place, {"factors": {"width": 8}}),
    "sasrec": lambda place: _liked(place, {"sasrec": {"width": 16, "layers": 1, "length": 6}}),
    "deepspeech": lambda place: _speech(place, {"deepspeech": {"channels": 4, "hidden": 16, "layers": 1}}),
    "lstm": lambda place: _speech(
        place, {"deepspeech": {"channels": 4, "hidden": 16, "layers": 1, "cell": "lstm", "ahead": 2}}
    ),
    "conformer": lambda place: _speech(place, {"conformer": {"hidden": 16, "layers": 1, "heads": 2}}),
    "whisper": lambda place: _speech(place, {"whisper": {"layers": 1, "width": 16, "heads": 2, "seconds": 2}}),
}


def trained(place: Path, name: str) -> Path:
    recipe = {"train": SHORT, "eval": {"resamples": 100}, **CASES[name](place)}
    result = run(recipe, base=place, runs=place / "runs", screen=silent())
    return list(result.stages.values())[-1].folder / "model"


# The others take minutes in all.
QUICK = ("pictures", "texts", "writer", "clicks", "factors", "deepspeech")


@pytest.mark.parametrize(
    "name", [name if name in QUICK else pytest.param(name, marks=pytest.mark.slow) for name in CASES]
)
def test_every_task_becomes_onnx(name: str, tmp_path: Path) -> None:
    folder = trained(tmp_path, name)
    found = export(folder, "onnx", screen=silent())
    assert found.largest_difference <= 1e-4 and found.same_answer > 0.999 and found.rows > 1
    if found.metric is not None:
        assert found.metric["after"] == pytest.approx(found.metric["before"], abs=1e-6)
    proof = read_json(folder.parent / "export" / "onnx.export.json", "a proof")
    assert (
        proof["largest_difference"] == found.largest_difference and (folder.parent / "export" / "model.onnx").exists()
    )
    # The number of rows is free, and so is the length of what has one.
    free = {key: entry["shape"].count(None) for key, entry in found.inputs.items()}
    assert all(count >= 1 for count in free.values())
    assert ("input_ids" not in free or free["input_ids"] == 2) and ("features" not in free or free["features"] == 2)
    assert not list((folder.parent / "export").glob(".tmp*"))


def test_whisper_hears_once_and_writes_token_by_token(tmp_path: Path) -> None:
    """With the two files alone, as a program without us would: the same text."""
    import onnxruntime

    from tunewright.models.speech.whisper import Whisper
    from tunewright.pipeline.stage import load_origin

    folder = trained(tmp_path, "whisper")
    export(folder, "onnx", screen=silent())
    place = folder.parent / "export"
    hears, writes = (onnxruntime.InferenceSession(str(place / f"{name}.onnx")) for name in ("encoder", "model"))
    origin = load_origin(folder)
    network, facts = origin.network.eval(), origin.network.spec["speech"]
    assert isinstance(network, Whisper)
    draw = torch.Generator().manual_seed(1)
    inputs = {"features": torch.randn(2, 120, 80, generator=draw), "lengths": torch.tensor([120, 70])}
    with torch.no_grad():
        expected = network.dictate(inputs, 20)
    assert any(expected)
    (heard,) = hears.run(None, {name: value.numpy() for name, value in inputs.items()})
    for row, text in enumerate(expected):
        tokens = list(facts["start"])
        while len(tokens) - len(facts["start"]) < 20:
            (logits,) = writes.run(None, {"tokens": np.array([tokens]), "heard": heard[row : row + 1]})
            allowed = logits[0, -1, : facts["words"]]
            if (best := int(allowed.argmax())) == facts["end"]:
                break
            tokens.append(best)
        assert tokens[len(facts["start"]) :] == text


def test_eight_bits_and_torch(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = trained(tmp_path, "pictures")
    app(["export", str(folder), "--to", "torch"], standalone_mode=False)
    assert "the largest difference is 0" in capsys.readouterr().out
    whole, small = (export(folder, form, screen=silent()) for form in ("onnx", "int8"))
    assert small.bytes_after < whole.bytes_after and small.tolerance is None and small.largest_difference > 1e-4
    assert small.metric is not None
    import onnx

    expected = json.loads((folder / "checksums.json").read_text())["content_sha256"]
    assert whole.model_sha256 == small.model_sha256 == expected
    for name in ("model.onnx", "model.int8.onnx"):
        graph = onnx.load(folder.parent / "export" / name)
        assert {entry.key: entry.value for entry in graph.metadata_props}["tunewright.model_sha256"] == expected
    named = {"tunewright.model_sha256": ""}
    torch.export.load(folder.parent / "export" / "model.pt2", extra_files=named)
    assert str(named["tunewright.model_sha256"]) == expected
    lost = abs(small.metric["before"] - small.metric["after"])
    assert (small.flagged is not None) == (lost > 0.01)


def test_a_writer_becomes_gguf(tmp_path: Path) -> None:
    """Read back by the package that knows the format; that llama.cpp writes the same is tried in the benchmark."""
    import gguf

    folder = trained(tmp_path, "writer")
    found = export(folder, "gguf", screen=silent())
    assert found.largest_difference == 0 and found.same_answer == 1
    reader = gguf.GGUFReader(str(folder.parent / "export" / "model.gguf"))
    assert (
        reader.fields["general.architecture"].contents() == "llama"
        and reader.fields["tokenizer.ggml.pre"].contents() == "smollm"
    )
    assert len(reader.fields["tokenizer.ggml.tokens"].contents()) == 270
    assert reader.fields["tunewright.model_sha256"].contents() == found.model_sha256
    with pytest.raises(ArtifactError, match="architecture of Llama"):
        export(
            trained(tmp_path / "rows", "rows") if (tmp_path / "rows").mkdir() is None else folder,
            "gguf",
            screen=silent(),
        )


def test_queries_are_turned_and_back() -> None:
    weight = np.arange(2 * 8 * 3, dtype=np.float32).reshape(16, 3)
    moved = turned(weight, 2)
    assert (turned_back(moved, 2) == weight).all() and (moved[:8, 0] == weight[[0, 4, 1, 5, 2, 6, 3, 7], 0]).all()


def test_a_copy_that_is_another_model_is_not_left_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = trained(tmp_path, "rows")
    real = exporting.WRITERS["onnx"]

    def wrong(trial: Any, path: Path) -> Any:
        run_it = real(trial, path)
        return lambda inputs: run_it(inputs) + 0.01

    with monkeypatch.context() as patch:
        patch.setitem(exporting.WRITERS, "onnx", wrong)
        with pytest.raises(RunFailed, match="something else"):
            export(folder, "onnx", screen=silent())
        assert not list((folder.parent / "export").iterdir())
        assert export(folder, "onnx", tmp_path / "out", tolerance=0.1, screen=silent()).largest_difference > 1e-3
    export(folder, "onnx", screen=silent())
    with pytest.raises(UserError, match="there already"):
        export(folder, "onnx", screen=silent())
    with pytest.raises(RecipeError, match="no such form"):
        export(folder, "onyx", screen=silent())


def test_rows_of_ones_own(tmp_path: Path) -> None:
    folder = trained(tmp_path, "rows")
    moved = tmp_path / "elsewhere"
    folder.rename(moved)
    found = export(moved, "onnx", tmp_path / "out", data=str(tmp_path / "rows.csv"), screen=silent())
    assert found.rows == 120 and found.largest_difference <= 1e-4
