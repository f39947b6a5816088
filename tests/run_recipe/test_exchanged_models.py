"""A model that is exchanged between a kill and the next start: it is noticed, and nothing of two models is mixed."""

from __future__ import annotations

import io
import os
import shutil
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console as RichConsole
from safetensors.torch import load_file, save_file

from killed_runs import StageKind, exit_code, run_content, watch_calls
from stage_kinds import lora, two_stages
from tiny import tiny_bert
from tunewright.checksums import write_checksums
from tunewright.console import Console, silent
from tunewright.errors import ArtifactError
from tunewright.files import cached_sha256, sha256_file
from tunewright.run_recipe import run
from tunewright.runs.folder import Identity, open_run, read_json
from tunewright.runs.metrics_log import MetricsLog, read_metrics
from tunewright.training.checkpoints.beginning import Beginning
from tunewright.training.state import State


def killed_after(saves: int) -> Callable[[], None]:
    """Kills the process after so many checkpoints."""

    def strike(at: int, call: str) -> None:
        nonlocal saves
        if saves == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        saves -= call.startswith("replace step-")

    return lambda: watch_calls(strike)


def killed(make: Callable[[Path], dict[str, Any]], place: Path, saves: int) -> StageKind:
    kind = StageKind(make(place), place)
    assert exit_code(kind.start(killed_after(saves))) == -signal.SIGKILL
    return kind


def test_an_exchanged_backbone_begins_another_run(tmp_path: Path) -> None:
    kind = killed(lora, tmp_path, 2)
    before = run_content(kind.folder)
    tiny_bert(tmp_path / "tiny", layers=2, seed=1)
    said = io.StringIO()
    recipe = {**kind.recipe, "name": "killed"}
    done = run(recipe, base=tmp_path, runs=kind.runs, console=Console(rich=RichConsole(file=said, width=500)))
    assert done.folder.name == "killed-2" and done.stages["finetune"].summary["certificate"]["passed"]
    assert (
        "killed is not continued" in said.getvalue() and "model.safetensors of model.backbone tiny" in said.getvalue()
    )
    assert run_content(kind.folder) == before
    # What was begun with the first one goes on once it is there again.
    tiny_bert(tmp_path / "tiny", layers=2, seed=0)
    assert run(recipe, base=tmp_path, runs=kind.runs, console=silent()).folder.name == "killed"


def test_a_tokenizer_belongs_to_it(tmp_path: Path) -> None:
    kind = killed(lora, tmp_path, 1)
    path = tmp_path / "tiny" / "tokenizer.json"
    path.write_text(path.read_text().replace('"lowercase": true', '"lowercase": false') + "\n")
    done = run({**kind.recipe, "name": "killed"}, base=tmp_path, runs=kind.runs, console=silent())
    assert done.folder.name == "killed-2"


def test_a_model_to_start_from_belongs_to_it(tmp_path: Path) -> None:
    first = run({**two_stages(tmp_path), "name": "first", "stages": ["pretrain"]}, runs=tmp_path, console=silent())
    model = shutil.copytree(first.stages["pretrain"].folder / "model", tmp_path / "model")

    def goes_on(place: Path) -> dict[str, Any]:
        return {**two_stages(place), "stages": ["finetune"], "model": {"weights": "model"}}

    kind = killed(goes_on, tmp_path, 1)
    exchange(model / "model.safetensors")
    again = run({**kind.recipe, "name": "killed"}, base=tmp_path, runs=kind.runs, console=silent())
    assert again.folder.name == "killed-2"


def exchange(path: Path) -> None:
    tensors = load_file(path)
    save_file({name: value + 1 for name, value in tensors.items()}, path, metadata={"format": "pt"})
    write_checksums(path.parent, besides={"README.md"})


def test_a_stage_goes_on_from_the_model_that_it_began_with(tmp_path: Path) -> None:
    kind = killed(two_stages, tmp_path, 12)
    assert list(kind.folder.glob("finetune/checkpoints/step-*"))
    weights = kind.folder / "pretrain" / "model" / "model.safetensors"
    shutil.copy(weights, tmp_path / "kept")
    exchange(weights)
    recipe = {**kind.recipe, "name": "killed"}
    with pytest.raises(ArtifactError, match="has changed since") as caught:
        run(recipe, base=tmp_path, runs=kind.runs, console=silent())
    assert "model.safetensors" in (caught.value.found or "") and caught.value.fix
    shutil.copy(tmp_path / "kept", weights)
    write_checksums(weights.parent, besides={"README.md"})
    assert run(recipe, base=tmp_path, runs=kind.runs, console=silent()).folder == kind.folder


def test_tensors_are_compared_where_the_files_are_the_same() -> None:
    began = Beginning(files={"a": "1"}, tensors={"x": "1", "y": "1"})
    began.require_same(Beginning(files={"a": "1"}, tensors={}), None)  # no process holds the network whole
    with pytest.raises(ArtifactError) as caught:
        began.require_same(Beginning(files={"a": "1"}, tensors={"x": "2", "y": "1"}), None)
    assert caught.value.found == "other tensors: x"


def test_a_checkpoint_of_before_has_no_beginning() -> None:
    kept = State(step=3, beginning=Beginning(files={"a": "1"}, tensors={})).to_json()
    assert State.from_json(kept).beginning == Beginning(files={"a": "1"}, tensors={})
    del kept["beginning"]
    assert State.from_json(kept) == State(step=3)


def test_a_large_file_is_hashed_once_until_it_changes(tmp_path: Path, own_cache: Path) -> None:
    path = tmp_path / "weights"
    path.write_bytes(b"a" * 2**21)
    assert cached_sha256(path) == sha256_file(path) and not own_cache.exists()  # it may still change unseen
    time.sleep(2.1)
    assert cached_sha256(path) == sha256_file(path)
    (kept,) = (own_cache / "sha256").iterdir()
    kept.write_text('"' + "0" * 64 + '"')
    assert cached_sha256(path) == "0" * 64  # it is looked up
    kept.write_text("damaged")
    assert cached_sha256(path) == sha256_file(path)
    times = path.stat()
    path.write_bytes(b"b" * 2**21)
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))
    assert cached_sha256(path) == sha256_file(path)


IDENTITY = Identity(recipe="r", data=["d"], models={})


def test_a_run_that_another_process_finished_meanwhile_is_not_written_over(tmp_path: Path) -> None:
    notes: list[str] = []
    with open_run(tmp_path, "a", IDENTITY, {"f": "1"}, {}, notes.append) as (first, goes_on):
        assert not goes_on
        with open_run(tmp_path, "a", IDENTITY, {"f": "2"}, {}, notes.append) as (second, _):
            assert second.folder.name == "a-2" and "another process is at work" in notes[0]
        first.mark_complete()
    with open_run(tmp_path, "a", IDENTITY, {"f": "3"}, {}, notes.append) as (third, goes_on):
        assert third.folder.name == "a-2" and goes_on
    assert (tmp_path / "a" / "f").read_text() == "1" and read_json(tmp_path / "a" / "run.json", "a run")["complete"]


def test_a_damaged_record_is_somebody_elses_folder(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "run.json").write_text("{")
    notes: list[str] = []
    with open_run(tmp_path, "a", IDENTITY, {}, {}, notes.append) as (opened, _):
        assert opened.folder.name == "a-2"
    assert "cannot be read" in notes[0] and (tmp_path / "a" / "run.json").read_text() == "{"


def test_lines_are_on_the_disk_before_a_checkpoint(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    log = MetricsLog(path, step=0)
    for step in range(1, 4):
        log.append({"kind": "step", "step": step, "epoch": 1, "loss": 1.0, "lr": 0.1})
    log.sync()
    assert [entry["step"] for entry in read_metrics(path)] == [1, 2, 3]
    log.close()
    MetricsLog(None, step=0).close()
    assert Path(os.devnull).is_char_device()  # a process that keeps no record must not write over the device
