"""Serve the page of `tunewright ui`: all runs of a folder, read from their files alone.

The files may be a stranger's: what cannot be read is said of its run, and the other runs are shown.
"""

from __future__ import annotations

import difflib
import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from fastapi import FastAPI, HTTPException
from fastapi.responses import FileResponse, HTMLResponse, Response
from starlette.middleware.trustedhost import TrustedHostMiddleware

from tunewright.errors import ArtifactError, shorten
from tunewright.limits import SHOWN_FILE, SHOWN_METRICS, SHOWN_RECIPE
from tunewright.report.numbers import number_from
from tunewright.report.page import POLICY as REPORT_POLICY
from tunewright.report.reading import Stage, mapping, words_of
from tunewright.runs.folder import read_json
from tunewright.runs.metrics_log import read_metrics
from tunewright.serving.limits import LOCAL
from tunewright.serving.run_folder import RunFolder
from tunewright.serving.runs_page import runs_page, runs_script
from tunewright.serving.same_origin import POLICY, SameOrigin, page_response

# A run whose files changed fewer seconds ago is in progress.
ALIVE = 90
# The most points of a curve, and curves of a stage.
POINTS, CURVES = 400, 50
UNREADABLE = (ArtifactError, OSError, ValueError, RecursionError)

Found = TypeVar("Found")


@dataclass
class Known:
    """Hold the cached line of a run, and the times of its files."""

    stamp: float
    facts: dict[str, Any]


def make_ui(runs: Path) -> FastAPI:
    """Return the app of the page."""
    app = FastAPI(title="Tunewright: runs", docs_url=None, redoc_url=None, openapi_url=None, redirect_slashes=False)
    # No page from elsewhere may reach it under a name of its own (DNS rebinding).
    app.add_middleware(TrustedHostMiddleware, allowed_hosts=LOCAL)
    app.add_middleware(SameOrigin)
    known: dict[str, Known] = {}

    @app.get("/", response_class=HTMLResponse)
    def page(lang: str = "en") -> HTMLResponse:  # pyright: ignore[reportUnusedFunction]
        return page_response(runs_page("zh" if lang == "zh" else "en"), runs_script())

    @app.get("/api/runs")
    def listed() -> Response:  # pyright: ignore[reportUnusedFunction]
        found = [_listed(name, folder, known) for name, folder in _folders(runs).items()]
        return _json(sorted(found, key=lambda entry: (-entry["changed"], entry["name"])))

    @app.get("/api/runs/{name}")
    def one(name: str) -> Response:  # pyright: ignore[reportUnusedFunction]
        folder = _folder(runs, name)
        problems: list[str] = []
        stages = _or(lambda: folder.stages, [], problems)
        curves = [
            found for stage in stages if (found := _or(lambda stage=stage: _curves(folder, stage), None, problems))
        ]
        plan = _or(lambda: _plan(folder), [], problems)
        return _json({"name": name, "stages": curves, "plan": plan, "problems": problems})

    @app.get("/api/diff")
    def diff(a: str, b: str) -> Response:  # pyright: ignore[reportUnusedFunction]
        problems: list[str] = []
        texts = [_or(lambda name=name: _recipe(_folder(runs, name)), [], problems) for name in (a, b)]
        lines = difflib.unified_diff(texts[0], texts[1], a, b, lineterm="", n=1)
        return _json({"diff": "" if problems else "\n".join(lines), "problems": problems})

    @app.get("/report/{name}")
    def report(name: str) -> FileResponse:  # pyright: ignore[reportUnusedFunction]
        try:
            path = _folder(runs, name).file("report.html", most=SHOWN_FILE)
        except UNREADABLE as error:
            raise HTTPException(422, _sentence(error)) from None
        if path is None:
            raise HTTPException(404, "this run has no report yet")
        # The report may be a stranger's: it cannot run scripts, and sends no referrer.
        policy = f"sandbox; {REPORT_POLICY}; frame-ancestors 'none'"
        return FileResponse(path, media_type="text/html", headers={POLICY: policy})

    return app


def _json(found: Any) -> Response:
    """Return JSON in ASCII: a stranger's text may have lone surrogates, which UTF-8 cannot encode."""
    return Response(json.dumps(found, allow_nan=False), media_type="application/json")


def _folders(runs: Path) -> dict[str, RunFolder]:
    """Return the runs by name; bytes of a name that are not UTF-8 are escaped."""
    paths = [path.parent for path in runs.glob("*/run.json")]
    return {path.name.encode("utf-8", "backslashreplace").decode(): RunFolder(path) for path in paths}


def _folder(runs: Path, name: str) -> RunFolder:
    """Return a run's folder, if it is one of the listed runs."""
    if (folder := _folders(runs).get(name)) is None:
        raise HTTPException(404, "there is no such run")
    return folder


def _or(read: Callable[[], Found], otherwise: Found, problems: list[str]) -> Found:
    """Return the result of `read`; add its error to `problems`."""
    try:
        return read()
    except UNREADABLE as error:
        problems.append(_sentence(error))
        return otherwise


def _sentence(error: Exception) -> str:
    if not isinstance(error, ArtifactError):
        return shorten(error)
    expected = f"; expected {error.expected}" if error.expected else ""
    return shorten(f"{Path(error.file or '').name}: {error.problem}{expected}", 300)


def _listed(name: str, folder: RunFolder, known: dict[str, Known]) -> dict[str, Any]:
    """Return the table row of a run; only changed files are read again."""
    try:
        stages = folder.stages
        places = [("run.json",), *((stage, file) for stage in stages for file in ("summary.json", "metrics.jsonl"))]
        stamp = max(folder.changed(*place) for place in places)
        before = known.get(name)
        if before is None or before.stamp != stamp:
            known[name] = before = Known(stamp=stamp, facts=_facts(folder, stages))
    except UNREADABLE as error:
        known.pop(name, None)
        problem = _sentence(error)
        return {"name": name, "changed": 0, "status": "damaged", "problem": problem, "complete": False, "stages": []}
    complete = before.facts["complete"]
    status = "finished" if complete else "running" if time.time() - stamp < ALIVE else "stopped"
    return {**before.facts, "name": name, "changed": stamp, "status": status}


def _facts(folder: RunFolder, stages: list[str]) -> dict[str, Any]:
    found: dict[str, Any] = {"complete": bool(folder.record.get("complete")), "stages": stages}
    for name in stages:
        path = folder.file(name, "summary.json", most=SHOWN_FILE)
        if path is None:
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


def _recipe(folder: RunFolder) -> list[str]:
    path = folder.file("recipe.resolved.yaml", most=SHOWN_RECIPE)
    if path is None:
        raise ArtifactError("the recipe is missing", file=folder.path)
    return path.read_text(encoding="utf-8", errors="replace").splitlines()


def _curves(folder: RunFolder, stage: str) -> dict[str, Any]:
    """Return a stage's losses and validation results, thinned."""
    path = folder.file(stage, "metrics.jsonl", most=SHOWN_METRICS)
    lines = read_metrics(path) if path is not None else []
    epochs = [entry for entry in lines if entry.get("kind") == "epoch"]
    steps = [entry for entry in lines if entry.get("kind") == "step"]
    curves: dict[str, list[list[float]]] = {"train loss": _points(epochs, lambda entry: entry.get("train_loss"))}
    if not curves["train loss"]:
        curves = {"loss of steps": _points(steps, lambda entry: entry.get("loss"))}
    names = dict.fromkeys(key for entry in epochs for key in mapping(entry.get("valid")))
    for name in list(names)[:CURVES]:
        curves[f"valid {name}"] = _points(epochs, lambda entry, name=name: mapping(entry.get("valid")).get(name))
    return {"stage": stage, "curves": {name: points for name, points in curves.items() if points}}


def _points(entries: list[dict[str, Any]], value: Any) -> list[list[float]]:
    found = [
        [x, y]
        for entry in entries
        if (x := number_from(entry.get("step"))) is not None and (y := number_from(value(entry))) is not None
    ]
    step = max(1, -(-len(found) // POINTS))
    return found[::step] + (found[-1:] if len(found) % step != 1 and step > 1 else [])


def _plan(folder: RunFolder) -> list[dict[str, Any]]:
    """Return the predicted and actual seconds of each stage."""
    path = folder.file("plan.json", most=SHOWN_FILE)
    if path is None:
        return []
    plans = mapping(read_json(path, "a run's plan").get("stages"))
    found: list[dict[str, Any]] = []
    for name in folder.stages:
        summary = folder.file(name, "summary.json", most=SHOWN_FILE)
        if name in plans and summary is not None:
            took = number_from(mapping(read_json(summary, "a stage").get("training")).get("seconds"))
            foretold = number_from(mapping(mapping(plans[name]).get("seconds")).get("middle"))
            found.append({"stage": name, "foretold": foretold, "took": took})
    return found
