"""Exported files: opened by their own libraries, the same as the model on real rows of any number and length, for each task."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jaxtyping
import numpy as np
import pytest
import torch

from small_recipes import RECIPES, train_model
from tunewright.cli import app
from tunewright.commands import export as exporting
from tunewright.commands.export import export
from tunewright.console import silent
from tunewright.errors import ArtifactError, RecipeError, RunFailed, UserError
from tunewright.models.exchange.gguf_file import turned, turned_back
from tunewright.runs.folder import read_json

# The others take minutes in all.


@pytest.fixture(autouse=True)
def without_shape_checks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Export without checks of shapes: a check reads sizes, which would fix them in an exported graph."""
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)


QUICK = ("pictures", "texts", "writer", "clicks", "factors", "deepspeech")


@pytest.mark.parametrize(
    "name", [name if name in QUICK else pytest.param(name, marks=pytest.mark.slow) for name in RECIPES]
)
def test_every_task_becomes_onnx(name: str, tmp_path: Path) -> None:
    folder = train_model(tmp_path, name)
    found = export(folder, "onnx", console=silent())
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

    folder = train_model(tmp_path, "whisper")
    export(folder, "onnx", console=silent())
    place = folder.parent / "export"
    hears, writes = (onnxruntime.InferenceSession(str(place / f"{name}.onnx")) for name in ("encoder", "model"))
    origin = load_origin(folder)
    network, facts = origin.network.eval(), origin.network.spec.facts
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
    folder = train_model(tmp_path, "pictures")
    app(["export", str(folder), "--to", "torch"], standalone_mode=False)
    assert "the largest difference is 0" in capsys.readouterr().out
    whole, small = (export(folder, form, console=silent()) for form in ("onnx", "int8"))
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

    folder = train_model(tmp_path, "writer")
    found = export(folder, "gguf", console=silent())
    assert found.largest_difference == 0 and found.same_answer == 1
    reader = gguf.GGUFReader(str(folder.parent / "export" / "model.gguf"))
    assert (
        reader.fields["general.architecture"].contents() == "llama"
        and reader.fields["tokenizer.ggml.pre"].contents() == "smollm"
    )
    assert len(reader.fields["tokenizer.ggml.tokens"].contents()) == 270
    assert reader.fields["tunewright.model_sha256"].contents() == found.model_sha256
    with pytest.raises(ArtifactError, match="only Llama-architecture"):
        export(
            train_model(tmp_path / "rows", "rows") if (tmp_path / "rows").mkdir() is None else folder,
            "gguf",
            console=silent(),
        )


def test_queries_are_turned_and_back() -> None:
    weight = np.arange(2 * 8 * 3, dtype=np.float32).reshape(16, 3)
    moved = turned(weight, 2)
    assert (turned_back(moved, 2) == weight).all() and (moved[:8, 0] == weight[[0, 4, 1, 5, 2, 6, 3, 7], 0]).all()


def test_a_copy_that_is_another_model_is_not_left_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = train_model(tmp_path, "rows")
    real = exporting.WRITERS["onnx"]

    def wrong(trial: Any, path: Path) -> Any:
        run_it = real(trial, path)
        return lambda inputs: run_it(inputs) + 0.01

    with monkeypatch.context() as patch:
        patch.setitem(exporting.WRITERS, "onnx", wrong)
        with pytest.raises(RunFailed, match="differ from the model"):
            export(folder, "onnx", console=silent())
        assert not list((folder.parent / "export").iterdir())
        assert export(folder, "onnx", tmp_path / "out", tolerance=0.1, console=silent()).largest_difference > 1e-3
    export(folder, "onnx", console=silent())
    with pytest.raises(UserError, match="already exists"):
        export(folder, "onnx", console=silent())
    with pytest.raises(RecipeError, match="no such form"):
        export(folder, "onyx", console=silent())


def test_rows_of_ones_own(tmp_path: Path) -> None:
    folder = train_model(tmp_path, "rows")
    moved = tmp_path / "elsewhere"
    folder.rename(moved)
    found = export(moved, "onnx", tmp_path / "out", data=str(tmp_path / "rows.csv"), console=silent())
    assert found.rows == 120 and found.largest_difference <= 1e-4
