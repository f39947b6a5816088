"""The routes of `tunewright serve`. What a request names is never opened: rows, texts and contents of files are all that it can give."""

from __future__ import annotations

import asyncio
import hmac
import json
import time
from collections.abc import Awaitable, Callable
from concurrent.futures import Future
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from io import BytesIO
from typing import Any

import numpy as np
import pyarrow as pa
from fastapi import FastAPI, Request
from fastapi.responses import HTMLResponse, JSONResponse, Response
from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from starlette.middleware.base import BaseHTTPMiddleware
from starlette.middleware.trustedhost import TrustedHostMiddleware

from tunewright.data.audio import sound_seconds
from tunewright.data.columns import Rejects
from tunewright.data.sources.base import ROW
from tunewright.errors import UserError
from tunewright.serving.batching import Batcher
from tunewright.serving.limits import LOCAL, Limits, Refused
from tunewright.serving.openai_api import add_openai
from tunewright.serving.page import try_page
from tunewright.stages.given import picture_pieces, rows_table, sound_piece
from tunewright.stages.predict import Model
from tunewright.tasks.interactions import InteractionEncoder
from tunewright.tasks.pixels import PixelEncoder
from tunewright.tasks.recordings import SpeechEncoder
from tunewright.tasks.tokens import TokenEncoder

# Requests without these may be answered to anybody.
OPEN = ("/", "/health")


def make_app(model: Model, *, name: str, token: str | None = None, limits: Limits | None = None) -> FastAPI:
    """The service of a model.

    Args:
        token: what a request's `Authorization: Bearer` has to say; None: anybody is answered.
    """
    limits = limits or Limits()
    registry = CollectorRegistry()
    requests = Counter("tunewright_requests", "Requests, by path and status", ["path", "status"], registry=registry)
    latency = Histogram("tunewright_seconds", "Seconds until a request was answered", ["path"], registry=registry)
    sizes = Histogram(
        "tunewright_batch_rows", "Rows in a pass", buckets=[1, 2, 4, 8, 16, 32, 64, 128, 256, 1024], registry=registry
    )
    passes = Histogram("tunewright_pass_seconds", "Seconds of a pass", registry=registry)

    def seen(rows: int, seconds: float) -> None:
        sizes.observe(rows)
        passes.observe(seconds)

    batcher = Batcher(limits.rows, seen)

    @asynccontextmanager
    async def lifespan(_app: FastAPI):
        yield
        batcher.stop()

    app = FastAPI(title=f"Tunewright: {name}", lifespan=lifespan, docs_url="/docs", redoc_url=None)
    running = 0

    async def guard(request: Request, call: Callable[[Request], Awaitable[Response]]) -> Response:
        nonlocal running
        started, path = time.perf_counter(), request.url.path
        known = path if any(path == getattr(route, "path", None) for route in app.routes) else "other"
        if token is not None and path not in OPEN and not _is_allowed(request, token):
            response: Response = _refusal(
                Refused(401, "the token is missing or wrong", "send the header Authorization: Bearer TOKEN")
            )
        elif running >= limits.waiting:
            response = _refusal(Refused(503, "too many requests at the same time", "try again in a moment"))
        else:
            running += 1
            try:
                response = await call(request)
            finally:
                running -= 1
        requests.labels(known, str(response.status_code)).inc()
        latency.labels(known).observe(time.perf_counter() - started)
        return response

    app.add_middleware(BaseHTTPMiddleware, dispatch=guard)
    if token is None:
        app.add_middleware(TrustedHostMiddleware, allowed_hosts=LOCAL)

    @app.exception_handler(Refused)
    async def refused(_request: Request, error: Refused) -> JSONResponse:  # pyright: ignore[reportUnusedFunction]
        return _refusal(error)

    @app.get("/", response_class=HTMLResponse, include_in_schema=False)
    async def page() -> str:  # pyright: ignore[reportUnusedFunction]
        return try_page(name, kind_of(model))

    @app.get("/health")
    async def health() -> dict[str, str]:  # pyright: ignore[reportUnusedFunction]
        return {"status": "ready", "model": name, "task": model.preprocessor.task.name}

    @app.get("/metrics", include_in_schema=False)
    async def metrics() -> Response:  # pyright: ignore[reportUnusedFunction]
        return Response(generate_latest(registry), media_type="text/plain; version=0.0.4")

    @app.post("/predict", openapi_extra=_body_of(model))
    async def predict(request: Request) -> dict[str, Any]:  # pyright: ignore[reportUnusedFunction]
        """Answers for rows, texts, a picture or a recording."""
        table, reading, left_out = await asyncio.to_thread(
            _table, model, await _body(request, limits), request.headers, limits
        )
        answers = await _waited(batcher.submit(table, reading), limits) if table.num_rows else []
        return {"predictions": answers} | ({"left_out": left_out} if left_out else {})

    add_openai(app, model, name=name, limits=limits, body=lambda request: _body(request, limits))
    return app


def kind_of(model: Model) -> str:
    """What the page shows: picture, sound, user, chat, text or rows."""
    inputs = model.preprocessor.inputs
    if isinstance(inputs, PixelEncoder):
        return "picture"
    if isinstance(inputs, SpeechEncoder):
        return "sound"
    if isinstance(inputs, InteractionEncoder):
        return "user"
    return "text" if isinstance(inputs, TokenEncoder) else "rows"


def _is_allowed(request: Request, token: str) -> bool:
    given = request.headers.get("authorization", "")
    return hmac.compare_digest(given.encode(), f"Bearer {token}".encode())


def _refusal(error: Refused) -> JSONResponse:
    return JSONResponse(
        {"error": {"message": error.problem, "fix": error.fix, "code": error.status}}, status_code=error.status
    )


async def _body(request: Request, limits: Limits) -> bytes:
    """The body, read only as far as it may be long."""
    found = bytearray()
    async for part in request.stream():
        found += part
        if len(found) > limits.body:
            raise Refused(413, f"the body is longer than {limits.body:,} bytes", "send less at a time")
    return bytes(found)


async def _waited(answer: Future[list[dict[str, Any]]], limits: Limits) -> list[dict[str, Any]]:
    try:
        return await asyncio.wait_for(asyncio.wrap_future(answer), limits.seconds)
    except TimeoutError:
        raise Refused(408, f"no answer within {limits.seconds:g} s", "send less at a time") from None
    except UserError as error:
        raise Refused(422, error.problem, error.fix or error.expected or "correct the rows") from None
    except (ValueError, TypeError, KeyError, IndexError, pa.ArrowException) as error:
        raise Refused(
            422, f"the rows cannot be read: {error}", "send the columns that the model was trained on"
        ) from None


def _table(
    model: Model, body: bytes, headers: Any, limits: Limits
) -> tuple[pa.Table, Callable[[pa.Table], list[dict[str, Any]]], list[str]]:
    """The rows of a request, what answers them, and what was left out."""
    inputs = model.preprocessor.inputs
    kind = headers.get("content-type", "").split(";")[0].strip().lower()
    if isinstance(inputs, PixelEncoder):
        if not kind.startswith("image/"):
            raise Refused(
                415, "the model reads pictures", "send the picture's bytes with a Content-Type such as image/png"
            )
        try:
            (piece,) = picture_pieces([(1, body)], inputs, None)
        except UserError as error:
            raise Refused(422, error.problem, error.fix or "send a PNG or JPEG") from None
        return piece.table, Reading(model, piece.inputs), []
    if isinstance(inputs, SpeechEncoder):
        if not kind.startswith(("audio/", "video/")):
            raise Refused(
                415, "the model hears recordings", "send the recording's bytes with a Content-Type such as audio/wav"
            )
        _require_short(body, limits)
        try:
            piece = sound_piece("the recording", inputs, body)
        except UserError as error:
            raise Refused(422, error.problem, error.fix or "send WAV, FLAC, OGG or MP3") from None
        return piece.table, model.predict, []
    if kind != "application/json":
        raise Refused(415, "the body is no JSON", 'send {"inputs": [...]} with Content-Type: application/json')
    return _rows(model, body, limits)


@dataclass(frozen=True)
class Reading:
    """What answers pictures that are framed alike: where two are equal, their rows go through the network together."""

    model: Model
    inputs: Any

    def __call__(self, table: pa.Table) -> list[dict[str, Any]]:
        return replace(self.model, preprocessor=replace(self.model.preprocessor, inputs=self.inputs)).predict(table)


def _require_short(body: bytes, limits: Limits) -> None:
    try:
        seconds = sound_seconds(BytesIO(body))
    except ValueError as error:
        raise Refused(422, f"{error}", "send WAV, FLAC, OGG or MP3") from None
    if seconds > limits.seconds_of_sound:
        raise Refused(413, f"the recording is longer than {limits.seconds_of_sound:g} s", "send shorter ones")


def _rows(
    model: Model, body: bytes, limits: Limits
) -> tuple[pa.Table, Callable[[pa.Table], list[dict[str, Any]]], list[str]]:
    try:
        given = json.loads(body)
    except (ValueError, RecursionError):
        raise Refused(400, "the body is no JSON", 'send {"inputs": [...]}') from None
    entries = given.get("inputs") if isinstance(given, dict) else None
    if isinstance(entries, str | dict):
        entries = [entries]
    if not isinstance(entries, list) or not entries:
        raise Refused(422, "there are no inputs", 'send {"inputs": [...]}, each a text or a row {column: value}')
    if len(entries) > limits.rows:
        raise Refused(413, f"{len(entries):,} inputs are more than {limits.rows:,}", "send fewer at a time")
    records = [(number, _record(entry, model, number)) for number, entry in enumerate(entries, start=1)]
    rejects = Rejects()
    try:
        table = rows_table(records, model.preprocessor.inputs, rejects)
    except UserError as error:
        raise Refused(422, error.problem, error.fix or error.expected or "correct the rows") from None
    except (ValueError, TypeError, KeyError, OverflowError, pa.ArrowException) as error:
        raise Refused(
            422, f"the rows cannot be read: {error}", "send the columns that the model was trained on"
        ) from None
    reasons = [f"{entry.reason}: {'; '.join(entry.examples)}" for entry in rejects.summary()]
    if table.num_rows == 0:
        raise Refused(422, "no row can be read: " + "; ".join(reasons), "correct the rows")
    # Whose row an answer is does not matter inside a pass, and tables of many requests become one.
    numbered = table.column_names.index(ROW)
    return table.set_column(numbered, ROW, pa.array(np.arange(1, table.num_rows + 1))), model.predict, reasons


def _record(entry: Any, model: Model, number: int) -> dict[str, Any]:
    """One row. Only what is written in the request itself is read."""
    inputs = model.preprocessor.inputs
    if isinstance(entry, dict) and entry and all(isinstance(key, str) for key in entry):
        return {key: value for key, value in entry.items() if key != ROW}
    if isinstance(inputs, InteractionEncoder) and isinstance(entry, str | int):
        return {inputs.user: str(entry)}
    if isinstance(inputs, TokenEncoder):
        columns = getattr(inputs, "prompts", None) or (["prompt"] if hasattr(inputs, "ends") else inputs.columns)
        values = entry if isinstance(entry, list) else [entry]
        if len(values) == len(columns) and all(isinstance(value, str) for value in values):
            return dict(zip(columns, values))
    raise Refused(
        422,
        f"input {number} is no row",
        "send each as {column: value}" + (", or as a text" if isinstance(inputs, TokenEncoder) else ""),
    )


def _body_of(model: Model) -> dict[str, Any]:
    """What /predict takes, for the OpenAPI page."""
    kind = kind_of(model)
    binary = {"schema": {"type": "string", "format": "binary"}}
    if kind == "picture":
        content: dict[str, Any] = {"image/png": binary, "image/jpeg": binary}
    elif kind == "sound":
        content = {"audio/wav": binary, "audio/flac": binary, "audio/ogg": binary}
    else:
        row: dict[str, Any] = (
            {"type": "object"} if kind == "rows" else {"anyOf": [{"type": "string"}, {"type": "object"}]}
        )
        items = {"type": "array", "items": row, "minItems": 1}
        schema = {"type": "object", "properties": {"inputs": items}, "required": ["inputs"]}
        content = {"application/json": {"schema": schema}}
    return {"requestBody": {"required": True, "content": content}}
