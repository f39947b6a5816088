"""Define the routes of `tunewright serve`. A request contains rows, texts or file contents; nothing that it names is opened."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from typing import Any

import pyarrow as pa
from fastapi import FastAPI, Request
from fastapi.responses import HTMLResponse, Response
from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from starlette.exceptions import HTTPException
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.requests import ClientDisconnect

from tunewright.data.manifest import Rejects
from tunewright.data.source import ROW
from tunewright.errors import UserError
from tunewright.inference.model import Model
from tunewright.serving.batching import Batcher
from tunewright.serving.docs_page import docs_page
from tunewright.serving.model_page import SCRIPT, try_page
from tunewright.serving.openai_api import Worker, add_openai
from tunewright.serving.request_guard import Guard
from tunewright.serving.request_limits import LOCAL, Limits, Refused
from tunewright.serving.same_origin import SameOrigin, page_response
from tunewright.serving.strict_json import parse_json
from tunewright.tasks.base.request import Request as Asked

# Requests without these may be answered to anybody.
OPEN = ("/", "/health", "/ready")
JSON = "application/json"


def make_app(model: Model, *, name: str, token: str | None = None, limits: Limits | None = None) -> FastAPI:
    """Return the app that serves a model.

    Args:
        token: what a request's `Authorization: Bearer` has to say; None: anybody is answered.
    """
    limits = limits or Limits()
    registry = CollectorRegistry()
    passes = Passes(registry)
    batcher = Batcher(limits.rows, passes.seen)

    @asynccontextmanager
    async def lifespan(_app: FastAPI):
        yield
        for worker in workers:
            worker.stop()

    app = FastAPI(title=f"Tunewright: {name}", lifespan=lifespan, docs_url=None, redoc_url=None, redirect_slashes=False)
    requests = Requests(registry, app)
    app.add_middleware(Guard, token=token, limits=limits, open_to_all=OPEN, seen=requests.seen)
    if token is None:
        app.add_middleware(TrustedHostMiddleware, allowed_hosts=LOCAL)
    app.add_middleware(SameOrigin)
    _answer_errors(app)

    async def json_body(request: Request) -> bytes:
        _require_type(request, (JSON,))
        body = await request.body()
        await asyncio.to_thread(parse_json, body, limits)
        return body

    _add_pages(app, model, name)

    @app.get("/health")
    async def health() -> dict[str, str]:  # pyright: ignore[reportUnusedFunction]
        """Report that the server is alive."""
        return {"status": "alive", "model": name, "task": model.preprocessor.task.name}

    @app.get("/ready")
    async def ready() -> dict[str, str]:  # pyright: ignore[reportUnusedFunction]
        """Report whether the inference thread was active within the last second."""
        if not all(worker.is_responsive() for worker in workers):
            raise Refused(503, "the current batch has taken more than a second", "try again in a moment")
        return {"status": "ready"}

    @app.get("/metrics", include_in_schema=False)
    async def metrics() -> Response:  # pyright: ignore[reportUnusedFunction]
        return Response(generate_latest(registry), media_type="text/plain; version=0.0.4")

    @app.post("/predict", openapi_extra=_body_of(model))
    async def predict(request: Request) -> Response:  # pyright: ignore[reportUnusedFunction]
        """Predict for rows, texts, an image or a recording."""
        _require_type(request, model.preprocessor.request.media_types or (JSON,))
        table, reading, left_out = await asyncio.to_thread(_table, model, await request.body(), limits)
        answers = await _waited(batcher.submit(table, reading), limits)
        found = {"predictions": answers} | ({"left_out": left_out} if left_out else {})
        return Response(await asyncio.to_thread(_written, found), media_type=JSON)

    openai = add_openai(app, model, name=name, limits=limits, body=json_body)
    workers: list[Worker] = [batcher] if openai is None else [batcher, openai]

    def begin_stop() -> None:
        for worker in workers:
            worker.begin_stop()

    app.state.begin_stop = begin_stop
    return app


def _add_pages(app: FastAPI, model: Model, name: str) -> None:
    """Add the pages for people."""

    @app.get("/", include_in_schema=False)
    async def page() -> HTMLResponse:  # pyright: ignore[reportUnusedFunction]
        return page_response(try_page(name, model.preprocessor.request.kind), SCRIPT)

    @app.get("/docs", include_in_schema=False)
    async def docs(request: Request) -> HTMLResponse:  # pyright: ignore[reportUnusedFunction]
        return page_response(docs_page(app.openapi(), str(request.base_url).rstrip("/")))


class Passes:
    """Measure the rows and the time of each batch."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.sizes = Histogram(
            "tunewright_batch_rows",
            "Rows in a batch",
            buckets=[1, 2, 4, 8, 16, 32, 64, 128, 256, 1024],
            registry=registry,
        )
        self.seconds = Histogram("tunewright_pass_seconds", "Seconds of a batch", registry=registry)

    def seen(self, rows: int, seconds: float) -> None:
        self.sizes.observe(rows)
        self.seconds.observe(seconds)


class Requests:
    """Count responses by path: those of `app`; all unknown paths are "other"."""

    def __init__(self, registry: CollectorRegistry, app: FastAPI) -> None:
        self.app = app
        self.count = Counter(
            "tunewright_requests", "Requests, by path and status", ["path", "status"], registry=registry
        )
        self.seconds = Histogram(
            "tunewright_seconds", "Seconds until a request was answered", ["path"], registry=registry
        )

    def seen(self, path: str, status: int, seconds: float) -> None:
        known = path if any(path == getattr(route, "path", None) for route in self.app.routes) else "other"
        self.count.labels(known, str(status)).inc()
        self.seconds.labels(known).observe(seconds)


def _answer_errors(app: FastAPI) -> None:
    """Return every error in the same format."""

    @app.exception_handler(Refused)
    async def refused(_request: Request, error: Refused) -> Response:  # pyright: ignore[reportUnusedFunction]
        return error.response

    @app.exception_handler(HTTPException)
    async def unknown(_request: Request, error: HTTPException) -> Response:  # pyright: ignore[reportUnusedFunction]
        response = Refused(error.status_code, error.detail, "GET /docs lists the routes").response
        response.headers.update(error.headers or {})
        return response

    @app.exception_handler(ClientDisconnect)
    async def gone(_request: Request, _error: ClientDisconnect) -> Response:  # pyright: ignore[reportUnusedFunction]
        return Response(status_code=400)  # nobody receives it

    @app.exception_handler(Exception)
    async def failed(_request: Request, _error: Exception) -> Response:  # pyright: ignore[reportUnusedFunction]
        return Refused(500, "the server failed", "see its log").response


def _require_type(request: Request, types: tuple[str, ...]) -> None:
    given = request.headers.getlist("content-type")
    if len(given) != 1 or given[0].split(";")[0].strip().lower() not in types:
        raise Refused(
            415,
            f"the Content-Type is {', '.join(given) or 'missing'}",
            f"send the body with Content-Type: {' or '.join(types)}",
        )


def _written(found: dict[str, Any]) -> bytes:
    """Return the JSON of an answer; NaN and infinity are errors."""
    try:
        return json.dumps(found, ensure_ascii=False, allow_nan=False).encode()
    except ValueError:
        raise Refused(500, "the model's output is not finite", "send smaller numbers") from None


async def _waited(answer: Future[list[dict[str, Any]]], limits: Limits) -> list[dict[str, Any]]:
    try:
        return await asyncio.wait_for(asyncio.wrap_future(answer), limits.seconds)
    except TimeoutError:
        raise Refused(503, f"no answer within {limits.seconds:g} s", "send less at a time") from None
    except UserError as error:
        raise Refused.because(error) from None
    except (ValueError, TypeError, KeyError, IndexError, pa.ArrowException) as error:
        raise Refused(
            422, f"the rows cannot be read: {error}", "send the columns that the model was trained on"
        ) from None


def _table(
    model: Model, body: bytes, limits: Limits
) -> tuple[pa.Table, Callable[[pa.Table], list[dict[str, Any]]], list[str]]:
    """Return the rows of a request, the function that answers them, and the skipped rows."""
    request = model.preprocessor.request
    if request.media_types:
        _require_short(request, body, limits)
        try:
            chunk = request.content(body)
        except UserError as error:
            raise Refused.because(error, f"send {request.formats}") from None
        return chunk.table, Reading(model, chunk.inputs), []
    return _rows(model, body, limits)


@dataclass(frozen=True)
class Reading:
    """Answer images with the same preprocessing: equal ones share a batch."""

    model: Model
    inputs: Any

    def __call__(self, table: pa.Table) -> list[dict[str, Any]]:
        return replace(self.model, preprocessor=replace(self.model.preprocessor, inputs=self.inputs)).predict(table)


def _require_short(request: Asked[Any], body: bytes, limits: Limits) -> None:
    try:
        seconds, samples = request.duration(body)
    except ValueError as error:
        raise Refused(422, f"{error}", f"send {request.formats}") from None
    if seconds > limits.seconds_of_sound:
        raise Refused(413, f"the recording is longer than {limits.seconds_of_sound:g} s", "send shorter ones")
    if samples > limits.samples:
        raise Refused(413, f"the recording has more than {limits.samples:,} samples", "send it at a lower rate")


def _rows(
    model: Model, body: bytes, limits: Limits
) -> tuple[pa.Table, Callable[[pa.Table], list[dict[str, Any]]], list[str]]:
    given = parse_json(body, limits)
    entries = given.get("inputs") if isinstance(given, dict) else None
    if isinstance(entries, str | dict):
        entries = [entries]
    if not isinstance(entries, list) or not entries:
        raise Refused(422, "there are no inputs", 'send {"inputs": [...]}, each a text or a row {column: value}')
    if len(entries) > limits.rows:
        raise Refused(413, f"{len(entries):,} inputs are more than {limits.rows:,}", "send fewer at a time")
    records = [(number, _record(entry, model, number)) for number, entry in enumerate(entries, start=1)]
    _require_small([record for _, record in records], limits)
    rejects = Rejects()
    try:
        table = model.preprocessor.request.table(records, rejects)
    except UserError as error:
        raise Refused.because(error) from None
    except (ValueError, TypeError, KeyError, OverflowError, pa.ArrowException) as error:
        raise Refused(
            422, f"the rows cannot be read: {error}", "send the columns that the model was trained on"
        ) from None
    reasons = [f"{entry.reason}: {'; '.join(entry.examples)}" for entry in rejects.summary()]
    if table.num_rows == 0:
        raise Refused(422, "no row can be read: " + "; ".join(reasons), "correct the rows")
    return table, model.predict, reasons


def _require_small(records: list[dict[str, Any]], limits: Limits) -> None:
    """Refuse rows whose table would be far larger than the request, and texts that would block the inference thread."""
    columns = len({name for record in records for name in record})
    if columns > limits.columns or columns * len(records) > limits.values:
        raise Refused(
            413,
            f"{len(records):,} rows of {columns:,} columns are too many",
            f"send at most {limits.columns:,} columns, and {limits.values:,} cells at a time",
        )
    for number, record in enumerate(records, start=1):
        longest = max(len(value if isinstance(value, str) else json.dumps(value)) for value in record.values())
        if longest > limits.text:
            raise Refused(
                413,
                f"row {number}: a text has {longest:,} characters",
                f"send at most {limits.text:,} characters per text",
            )


def _record(entry: Any, model: Model, number: int) -> dict[str, Any]:
    """Return one row. Only the content of the request itself is read."""
    request = model.preprocessor.request
    if isinstance(entry, dict) and entry and all(isinstance(key, str) for key in entry):
        return {key: value for key, value in entry.items() if key != ROW}
    if (record := request.record(entry)) is not None:
        return record
    raise Refused(
        422,
        f"input {number} is not a row",
        "send each as {column: value}" + (", or as a text" if request.columns else ""),
    )


def _body_of(model: Model) -> dict[str, Any]:
    """Return the schema of /predict for the API documentation."""
    request = model.preprocessor.request
    binary = {"schema": {"type": "string", "format": "binary"}}
    if request.media_types:
        content: dict[str, Any] = dict.fromkeys(request.media_types, binary)
    else:
        row: dict[str, Any] = (
            {"anyOf": [{"type": "string"}, {"type": "object"}]} if request.columns else {"type": "object"}
        )
        items = {"type": "array", "items": row, "minItems": 1}
        schema = {"type": "object", "properties": {"inputs": items}, "required": ["inputs"]}
        content = {JSON: {"schema": schema}}
    return {"requestBody": {"required": True, "content": content}}
