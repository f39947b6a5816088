"""`tunewright ui`: all runs of a folder on a local page, read from their files alone."""

from __future__ import annotations

import difflib
import json
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fastapi import FastAPI, HTTPException
from fastapi.responses import FileResponse, HTMLResponse
from starlette.middleware.trustedhost import TrustedHostMiddleware

from tunewright.errors import ArtifactError
from tunewright.report.numbers import number_from
from tunewright.report.reading import Stage, mapping, sequence, words_of
from tunewright.runs import read_json, read_metrics
from tunewright.serving.limits import LOCAL
from tunewright.serving.runs_page import runs_page

# A run whose files changed so many seconds ago is going on.
ALIVE = 90
# Points of a curve at most: more cannot be seen.
POINTS = 400


@dataclass
class Known:
    """What was read of a run, and when its files had changed."""

    stamp: float
    facts: dict[str, Any]


def make_ui(runs: Path) -> FastAPI:
    """The page's server."""
    app = FastAPI(title="Tunewright: runs", docs_url=None, redoc_url=None, openapi_url=None)
    # No page from elsewhere may reach it under a name of its own (DNS rebinding).
    app.add_middleware(TrustedHostMiddleware, allowed_hosts=LOCAL)
    known: dict[str, Known] = {}

    @app.get("/", response_class=HTMLResponse)
    def page(lang: str = "en") -> str:  # pyright: ignore[reportUnusedFunction]
        return runs_page("zh" if lang == "zh" else "en")

    @app.get("/api/runs")
    def listed() -> list[dict[str, Any]]:  # pyright: ignore[reportUnusedFunction]
        found = [
            facts for folder in sorted(runs.glob("*/run.json")) if (facts := _listed(folder.parent, known)) is not None
        ]
        return sorted(found, key=lambda entry: -entry["changed"])

    @app.get("/api/runs/{name}")
    def one(name: str) -> dict[str, Any]:  # pyright: ignore[reportUnusedFunction]
        folder = _folder(runs, name)
        return {"name": name, "stages": [_curves(folder / stage) for stage in _stages(folder)], "plan": _plan(folder)}

    @app.get("/api/diff")
    def diff(a: str, b: str) -> dict[str, str]:  # pyright: ignore[reportUnusedFunction]
        texts = [
            (_folder(runs, name) / "recipe.resolved.yaml").read_text(encoding="utf-8").splitlines() for name in (a, b)
        ]
        return {"diff": "\n".join(difflib.unified_diff(texts[0], texts[1], a, b, lineterm="", n=1))}

    @app.get("/report/{name}")
    def report(name: str) -> FileResponse:  # pyright: ignore[reportUnusedFunction]
        path = _folder(runs, name) / "report.html"
        if not path.exists():
            raise HTTPException(404, "this run has no report yet")
        return FileResponse(path, media_type="text/html")

    return app


def _folder(runs: Path, name: str) -> Path:
    """A run's folder: one of those that are listed, and no other."""
    if name not in {path.parent.name for path in runs.glob("*/run.json")}:
        raise HTTPException(404, "there is no such run")
    return runs / name


def _stages(folder: Path) -> list[str]:
    return [
        stage for entry in sequence(read_json(folder / "run.json", "a run").get("stages")) if (stage := words_of(entry))
    ]


def _listed(folder: Path, known: dict[str, Known]) -> dict[str, Any] | None:
    """A run in one line; only what changed is read again. None for a folder that is no sound run."""
    try:
        stages = _stages(folder)
        files = [
            folder / "run.json",
            *(folder / stage / name for stage in stages for name in ("summary.json", "metrics.jsonl")),
        ]
        stamp = max(path.stat().st_mtime for path in files if path.exists())
        before = known.get(folder.name)
        if before is None or before.stamp != stamp:
            known[folder.name] = before = Known(stamp=stamp, facts=_facts(folder, stages))
    except (ArtifactError, OSError, ValueError):
        return None
    complete = before.facts["complete"]
    status = "finished" if complete else "running" if time.time() - stamp < ALIVE else "stopped"
    return {**before.facts, "name": folder.name, "changed": stamp, "status": status}


def _facts(folder: Path, stages: list[str]) -> dict[str, Any]:
    found: dict[str, Any] = {
        "complete": bool(read_json(folder / "run.json", "a run").get("complete")),
        "stages": stages,
    }
    for name in stages:
        path = folder / name / "summary.json"
        if not path.exists():
            continue
        stage = Stage(name=name, summary=read_json(path, "a stage"), epochs=[], steps=[])
        training = stage.part("training")
        found |= {
            "task": words_of(stage.summary.get("task")),
            "data": words_of(stage.part("data").get("source")),
            "model": words_of(stage.part("model").get("title")),
            "seconds": (found.get("seconds") or 0) + (number_from(training.get("seconds")) or 0),
            "parameters": number_from(stage.part("model", "parameters").get("total")),
        }
        if stage.metric is not None:
            estimate = stage.estimates[stage.metric]
            found |= {"metric": stage.metric, "value": estimate.value, "low": estimate.low, "high": estimate.high}
    return found


def _curves(folder: Path) -> dict[str, Any]:
    """A stage's losses and validation results, thinned."""
    lines = read_metrics(folder / "metrics.jsonl") if (folder / "metrics.jsonl").exists() else []
    epochs = [entry for entry in lines if entry.get("kind") == "epoch"]
    steps = [entry for entry in lines if entry.get("kind") == "step"]
    curves: dict[str, list[list[float]]] = {"train loss": _points(epochs, lambda entry: entry.get("train_loss"))}
    if not curves["train loss"]:
        curves = {"loss of steps": _points(steps, lambda entry: entry.get("loss"))}
    for name in dict.fromkeys(key for entry in epochs for key in mapping(entry.get("valid"))):
        curves[f"valid {name}"] = _points(epochs, lambda entry, name=name: mapping(entry.get("valid")).get(name))
    return {"stage": folder.name, "curves": {name: points for name, points in curves.items() if points}}


def _points(entries: list[dict[str, Any]], value: Any) -> list[list[float]]:
    found = [
        [x, y]
        for entry in entries
        if (x := number_from(entry.get("step"))) is not None and (y := number_from(value(entry))) is not None
    ]
    step = max(1, -(-len(found) // POINTS))
    return found[::step] + (found[-1:] if len(found) % step != 1 and step > 1 else [])


def _plan(folder: Path) -> list[dict[str, Any]]:
    """Of each stage the seconds that were foretold and those that it took."""
    path = folder / "plan.json"
    if not path.exists():
        return []
    found: list[dict[str, Any]] = []
    for name, plan in mapping(json.loads(path.read_text()).get("stages")).items():
        summary = folder / name / "summary.json"
        if summary.exists():
            took = number_from(mapping(read_json(summary, "a stage").get("training")).get("seconds"))
            found.append(
                {
                    "stage": name,
                    "foretold": number_from(mapping(mapping(plan).get("seconds")).get("middle")),
                    "took": took,
                }
            )
    return found
