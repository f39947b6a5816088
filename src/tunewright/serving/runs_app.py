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
from tunewright.report.page import POLICY as REPORT_POLICY
from tunewright.report.reading import Stage
from tunewright.runs.metrics_log import Curves, read_curves
from tunewright.runs.run_files import read_plan
from tunewright.runs.summary.stage import open_summary
from tunewright.serving.request_limits import LOCAL
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
    found: dict[str, Any] = {"complete": folder.record.complete, "stages": stages}
    for name in stages:
        path = folder.file(name, "summary.json", most=SHOWN_FILE)
        if path is None:
            continue
        summary = open_summary(path)
        stage = Stage(name=name, summary=summary)
        found |= {
            "task": summary.task,
            "data": summary.data.source,
            "model": summary.model.title,
            "seconds": found.get("seconds", 0) + summary.training.seconds,
            "parameters": summary.model.parameters.total,
        }
        for metric, figure in list(stage.figures.items())[:1]:
            found |= {"metric": metric, "value": figure.value, "low": figure.low, "high": figure.high}
    return found


def _recipe(folder: RunFolder) -> list[str]:
    path = folder.file("recipe.resolved.yaml", most=SHOWN_RECIPE)
    if path is None:
        raise ArtifactError("the recipe is missing", file=folder.path)
    return path.read_text(encoding="utf-8", errors="replace").splitlines()


def _curves(folder: RunFolder, stage: str) -> dict[str, Any]:
    """Return a stage's losses and validation results, thinned."""
    path = folder.file(stage, "metrics.jsonl", most=SHOWN_METRICS)
    read = read_curves(path) if path is not None else Curves()
    curves = {"train loss": _thinned([[line.step, line.train_loss] for line in read.epochs])}
    if not read.epochs:
        curves = {"loss of steps": _thinned([[line.step, line.loss] for line in read.steps])}
    valid = [(line.step, line.valid or {}) for line in read.epochs]
    names = dict.fromkeys(name for _, values in valid for name in values)
    for name in list(names)[:CURVES]:
        curves[f"valid {name}"] = _thinned([[step, values[name]] for step, values in valid if name in values])
    return {"stage": stage, "curves": {name: points for name, points in curves.items() if points}}


def _thinned(found: list[list[float]]) -> list[list[float]]:
    """At most about `POINTS` of the points, the last one among them."""
    step = max(1, -(-len(found) // POINTS))
    return found[::step] + (found[-1:] if len(found) % step != 1 and step > 1 else [])


def _plan(folder: RunFolder) -> list[dict[str, Any]]:
    """Return the predicted and actual seconds of each stage."""
    path = folder.file("plan.json", most=SHOWN_FILE)
    if path is None:
        return []
    plans = read_plan(path).stages
    found: list[dict[str, Any]] = []
    for name in folder.stages:
        summary = folder.file(name, "summary.json", most=SHOWN_FILE)
        if name in plans and summary is not None:
            seconds = plans[name].seconds
            predicted = None if seconds is None else seconds.middle
            found.append({"stage": name, "predicted": predicted, "took": open_summary(summary).training.seconds})
    return found
