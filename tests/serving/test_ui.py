"""The page of all runs, and the look at an installation."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient

from tunewright.commands import doctor
from tunewright.commands.doctor import examine, findings
from tunewright.console import silent
from tunewright.errors import UserError
from tunewright.run_recipe import run
from tunewright.serving.runs_app import POINTS, make_ui
from tunewright.serving.runs_page import WORDS, runs_page
from tunewright.serving.start import show_runs

SMALL: dict[str, Any] = {
    "task": "image-classification",
    "data": {"source": "digits", "limit": 300},
    "model": {"layers": ["flatten", {"dense": 10}]},
    "train": {"epochs": 3},
}


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("ui")
    run({**SMALL, "name": "a"}, runs=place, console=silent())
    run({**SMALL, "name": "b", "train": {"epochs": 5, "lr": 0.01}}, runs=place, console=silent())
    (place / "broken").mkdir()
    (place / "broken" / "run.json").write_text("{")
    (place / "begun" / "pretrain").mkdir(parents=True)
    (place / "begun" / "run.json").write_text(json.dumps({"stages": ["pretrain"]}))
    lines = [{"kind": "step", "step": step, "epoch": 1, "loss": 1 / step, "lr": 0.1} for step in range(1, 5001)]
    (place / "begun" / "pretrain" / "metrics.jsonl").write_text("\n".join(map(json.dumps, lines)) + "\n")
    return place


def test_runs_are_listed_with_what_came_of_them(runs: Path) -> None:
    with TestClient(make_ui(runs), base_url="http://127.0.0.1") as client:
        found = {entry["name"]: entry for entry in client.get("/api/runs").json()}
        assert set(found) == {"a", "b", "begun", "broken"}
        assert found["broken"]["status"] == "damaged" and "run.json" in found["broken"]["problem"]
        assert (
            found["a"]["status"] == "finished" and found["a"]["metric"] == "accuracy" and 0 < found["a"]["value"] <= 1
        )
        assert found["begun"]["status"] == "running" and not found["begun"]["complete"]
        old = time.time() - 3600
        os.utime(runs / "begun" / "pretrain" / "metrics.jsonl", (old, old))
        os.utime(runs / "begun" / "run.json", (old, old))
        assert (
            next(entry for entry in client.get("/api/runs").json() if entry["name"] == "begun")["status"] == "stopped"
        )
        assert "<title>Tunewright: Runs</title>" in client.get("/").text and "运行" in client.get("/?lang=zh").text
        assert client.get("/report/a").headers["content-type"].startswith("text/html")
        assert client.get("/report/begun").status_code == 404


def test_curves_are_thinned_and_recipes_compared(runs: Path) -> None:
    with TestClient(make_ui(runs), base_url="http://127.0.0.1") as client:
        (stage,) = client.get("/api/runs/a").json()["stages"]
        assert len(stage["curves"]["train loss"]) == 3 and len(stage["curves"]["valid accuracy"]) == 3
        (stage,) = client.get("/api/runs/begun").json()["stages"]
        points = stage["curves"]["loss of steps"]
        assert POINTS / 2 < len(points) <= POINTS + 1 and points[0] == [1, 1] and points[-1][0] == 5000
        diff = client.get("/api/diff", params={"a": "a", "b": "b"}).json()["diff"]
        assert "-  epochs: 3" in diff and "+  epochs: 5" in diff and "source" not in diff


@pytest.mark.parametrize("name", ["..", "../..", "%2e%2e", "nowhere", "broken/../a"])
def test_nothing_outside_is_read(runs: Path, name: str) -> None:
    with TestClient(make_ui(runs), base_url="http://127.0.0.1") as client:
        assert client.get(f"/api/runs/{name}").status_code in (404, 200)
        for path in (f"/report/{name}", f"/api/diff?a={name}&b=a"):
            answer = client.get(path)
            assert answer.status_code == 404 or "Tunewright" in answer.text


def test_no_other_name_is_answered(runs: Path) -> None:
    with TestClient(make_ui(runs), base_url="http://elsewhere.example") as client:
        assert client.get("/api/runs").status_code == 400


def test_both_languages_have_the_same_words() -> None:
    assert WORDS["en"].keys() == WORDS["zh"].keys()
    for lang in ("en", "zh"):
        assert "http" not in runs_page(lang).replace("http-equiv", "").replace("http://www.w3.org/2000/svg", "")


def test_no_folder_of_runs(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no such folder"):
        show_runs(tmp_path / "runs", 1, silent())


def test_a_look_at_the_installation(monkeypatch: pytest.MonkeyPatch) -> None:
    found = {entry.what: entry for entry in findings()}
    assert found["torch"].fix is None and found["Python"].found and "cores" in found["processor"].found
    assert examine(silent())

    def missing(name: str) -> str:
        if name in ("opacus", "jiwer"):
            raise doctor.PackageNotFoundError(name)
        return "99.0"

    monkeypatch.setattr(doctor, "version", missing)
    found = {entry.what: entry for entry in findings()}
    extra = next(entry for what, entry in found.items() if "[privacy]" in what)
    assert extra.fix == 'pip install "tunewright[privacy]"' and not extra.needed
    assert found["jiwer"].fix is not None and not examine(silent())
    monkeypatch.setattr(doctor, "version", lambda name: "0.1")
    assert "is needed" in (next(entry for entry in findings() if entry.what == "numpy").fix or "")
