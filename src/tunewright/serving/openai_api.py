"""Serve OpenAI's API: chat, completions and embeddings, as far as the model supports them."""

from __future__ import annotations

import asyncio
import base64
import json
import time
import uuid
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeVar

import numpy as np
import torch
from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse, Response
from pydantic import ValidationError
from starlette.types import Receive, Scope, Send

from tunewright.commands.chat import Drawing
from tunewright.inference.model import Model
from tunewright.limits import CHOICES, PREPARATION_QUEUE, PROMPT_CHARACTERS, PROMPT_TOKENS, Limit
from tunewright.models.core.network import evaluating
from tunewright.models.hub.hf_network import Transformer
from tunewright.serving.bounded_executor import BoundedExecutor, ExecutorFull
from tunewright.serving.generation_engine import Engine, Generation, GenerationError, Prompt, QueueFull
from tunewright.serving.openai_schema import (
    ChatRequest,
    CompletionRequest,
    EmbeddingRequest,
    GenerationRequest,
    Honoured,
    request_body,
)
from tunewright.serving.request_limits import Limits, Refused
from tunewright.serving.template_process import ChatTemplate, TemplateError
from tunewright.tasks.language_model.encoder import CausalTextEncoder
from tunewright.tasks.language_model.writer import language_model, text_model
from tunewright.tasks.text.encoder import TokenEncoder

Asked = TypeVar("Asked", bound=Honoured)
Body = Callable[[Request], Awaitable[bytes]]
# The most bytes of an escaped character in JSON; and bytes for everything else in a request.
ESCAPED, REST = 6, 2**16
# Seconds after which a client should retry if the queue is full.
RETRY_AFTER = "1"
# Seconds after a stream's deadline for its client to read the rest.
LAST_SECONDS = 5.0
# The status that is counted for a request whose client disconnected.
CLIENT_LEFT = 499


class ApiError(Exception):
    """Refuse a request in the format of OpenAI's API."""

    def __init__(self, status: int, problem: str, *, param: str | None = None, code: str | None = None) -> None:
        self.status, self.problem, self.param, self.code = status, problem, param, code
        super().__init__(problem)

    def body(self) -> dict[str, Any]:
        """Return the JSON of the error."""
        kind = "server_error" if self.status >= 500 else "invalid_request_error"
        return {"error": {"message": self.problem, "type": kind, "param": self.param, "code": self.code}}

    def response(self) -> JSONResponse:
        """Return the response."""
        headers = {"Retry-After": RETRY_AFTER} if self.status == 503 else None
        return JSONResponse(self.body(), status_code=self.status, headers=headers)


class Worker(Protocol):
    """Define a worker outside of the event loop."""

    def is_responsive(self) -> bool:
        """Return whether it responds within a second."""
        ...

    def begin_stop(self) -> None:
        """End requests in progress soon; refuse new ones."""
        ...

    def stop(self) -> None:
        """End."""
        ...


def add_openai(app: FastAPI, model: Model, *, name: str, limits: Limits, body: Body) -> Worker | None:
    """Add the routes that the model can answer; what works for them, if it is any."""
    reader = text_model(model.network, model.preprocessor)
    if reader is None:
        return None
    began = int(time.time())

    @app.exception_handler(ApiError)
    async def refused(_request: Request, error: ApiError) -> JSONResponse:  # pyright: ignore[reportUnusedFunction]
        return error.response()

    @app.get("/v1/models")
    async def models() -> dict[str, Any]:  # pyright: ignore[reportUnusedFunction]
        return {"object": "list", "data": [{"id": name, "object": "model", "created": began, "owned_by": "tunewright"}]}

    talker = language_model(model.network, model.preprocessor)
    if talker is None:
        return _add_embeddings(app, Embedder(name, reader.network, reader.encoder, limits), body)
    writer = Writer(name, talker.network, talker.encoder, limits)
    if talker.encoder.tokenizer.chat_template is not None:
        template = writer.template = ChatTemplate(talker.encoder.tokenizer)

        @app.post("/v1/chat/completions", openapi_extra=request_body(ChatRequest))
        async def chat(request: Request) -> Response:  # pyright: ignore[reportUnusedFunction]
            """Generate the assistant's next turn."""
            content = await _content(request, body)
            wanted, prompts = await writer.prepared(lambda: writer.read_chat(content, template))
            return await writer.answer(request, wanted, prompts, "chatcmpl")

    @app.post("/v1/completions", openapi_extra=request_body(CompletionRequest))
    async def complete(request: Request) -> Response:  # pyright: ignore[reportUnusedFunction]
        """Continue the texts."""
        content = await _content(request, body)
        wanted, prompts = await writer.prepared(lambda: writer.read_completion(content))
        return await writer.answer(request, wanted, prompts, "cmpl")

    return writer


class Writer:
    """Answer requests for text: parse and tokenize them in a separate thread, and pass them to the engine."""

    def __init__(self, name: str, network: Transformer, encoder: CausalTextEncoder, limits: Limits) -> None:
        self.name, self.encoder, self.limits = name, encoder, limits
        encoder.tokenizer("", add_special_tokens=False)  # initialises it once, so that threads share it unchanged
        self.vocabulary = network.core.config.get_text_config().vocab_size
        self.engine = Engine(network, encoder)
        self.reader = BoundedExecutor("tokenize", PREPARATION_QUEUE.value)
        self.template: ChatTemplate | None = None

    def is_responsive(self) -> bool:
        return self.engine.is_responsive()

    def begin_stop(self) -> None:
        self.engine.begin_stop()

    def stop(self) -> None:
        self.engine.stop()
        self.reader.stop()
        if self.template is not None:
            self.template.stop()

    async def prepared(self, read: Callable[[], tuple[GenerationRequest, list[list[int]]]]) -> Any:
        """Run `read` on a request outside of the event loop."""
        return await _beside(self.reader, read)

    def read_chat(self, content: bytes, template: ChatTemplate) -> tuple[GenerationRequest, list[list[int]]]:
        """Return a request and the tokens of its conversation."""
        wanted = _parsed(ChatRequest, content, self.name)
        turns = [message.to_turn() for message in wanted.messages]
        _require(PROMPT_CHARACTERS, sum(len(turn["content"]) for turn in turns), "the conversation", "messages", 413)
        try:
            text = template.render(turns)
        except TemplateError as error:
            raise ApiError(
                400, f"the model's chat template cannot render this conversation: {error}", param="messages"
            ) from None
        return wanted, [self._tokens(text, "messages")]

    def read_completion(self, content: bytes) -> tuple[GenerationRequest, list[list[int]]]:
        """Return a request and the tokens of its prompts."""
        wanted = _parsed(CompletionRequest, content, self.name)
        _require(PROMPT_CHARACTERS, sum(map(len, wanted.prompts)), "the prompt", "prompt", 413)
        _require(CHOICES, len(wanted.prompts), "there are too many prompts: the request", "prompt", 400)
        return wanted, [self.encoder.begin + self._tokens(prompt, "prompt") for prompt in wanted.prompts]

    async def answer(
        self, request: Request, wanted: GenerationRequest, prompts: list[list[int]], kind: str
    ) -> Response:
        """Return the generated texts, complete or as a stream."""
        texts = [self._text(wanted, ids, choice) for ids in prompts for choice in range(self._choices(wanted, prompts))]
        for text in texts:
            if not text.ids:
                raise ApiError(400, "the prompt is empty; send a text")
            self._require_fits(text.ids, "messages" if kind == "chatcmpl" else "prompt")
        try:
            generation = self.engine.submit(texts, self.limits.seconds)
        except QueueFull:
            raise ApiError(
                503, "too many texts wait to be generated; try again in a moment", code="queue_full"
            ) from None
        except GenerationError as error:
            raise _said(error) from None
        facts = {"id": f"{kind}-{uuid.uuid4().hex[:24]}", "created": int(time.time()), "model": self.name}
        answer = Answer(facts, kind == "chatcmpl", sum(map(len, prompts)), len(texts))
        if wanted.stream:
            with_usage = wanted.stream_options is not None and wanted.stream_options.include_usage
            return EventStream(generation, answer, with_usage)
        async with _watched(request.receive, generation):
            try:
                async for event in generation:
                    answer.add(event)
            except GenerationError as error:
                raise _said(error) from None
        return JSONResponse(answer.whole()) if not generation.unfinished else Response(status_code=CLIENT_LEFT)

    def _choices(self, wanted: GenerationRequest, prompts: list[list[int]]) -> int:
        _require(CHOICES, wanted.n * len(prompts), "the request", "n", 400)
        return wanted.n

    def _text(self, wanted: GenerationRequest, ids: list[int], choice: int) -> Prompt:
        if wanted.most is not None and wanted.most > self.limits.tokens:
            raise ApiError(
                400,
                f"{wanted.most_field}: at most {self.limits.tokens:,} tokens are generated; ask for no more",
                param=wanted.most_field,
            )
        drawing = Drawing(
            temperature=wanted.temperature,
            top_p=wanted.top_p,
            most=wanted.most or self.limits.tokens,
            seed=wanted.seed + choice,
        )
        return Prompt(
            ids=ids,
            drawing=drawing,
            stop=wanted.stops,
            bias={self._token(name): bias for name, bias in wanted.logit_bias.items()},
            presence_penalty=wanted.presence_penalty,
            frequency_penalty=wanted.frequency_penalty,
        )

    def _token(self, name: str) -> int:
        if not (name.isascii() and name.isdigit() and len(name) < 19 and int(name) < self.vocabulary):
            raise ApiError(
                400, f"logit_bias: {name[:40]!r} is not a token; ids are 0 to {self.vocabulary - 1}", param="logit_bias"
            )
        return int(name)

    def _tokens(self, text: str, param: str) -> list[int]:
        """Tokenize a text; refuse one that cannot fit before others wait for it."""
        ids = self.encoder.tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"]
        self._require_fits(ids, param)
        return ids

    def _require_fits(self, ids: list[int], param: str) -> None:
        context = self.encoder.limit
        if len(ids) > context:
            raise ApiError(
                400,
                f"the context of the model is {context:,} tokens, the prompt has {len(ids):,}; send less",
                param=param,
                code="context_length_exceeded",
            )
        _require(PROMPT_TOKENS, len(ids), "the prompt", param, 400, "context_length_exceeded")


@dataclass
class Answer:
    """Collect the texts of a request, and format them for the API."""

    facts: dict[str, Any]
    chat: bool
    prompt_tokens: int
    count: int
    texts: dict[int, str] = field(default_factory=dict[int, str])
    tokens: dict[int, int] = field(default_factory=dict[int, int])
    reasons: dict[int, str | None] = field(default_factory=dict[int, Any])

    def add(self, event: Any) -> None:
        """Add a piece to a text."""
        self.texts[event.index] = self.texts.get(event.index, "") + event.text
        self.tokens[event.index] = event.tokens
        self.reasons[event.index] = event.reason

    def usage(self) -> dict[str, int]:
        """Return the numbers of prompt and generated tokens."""
        generated = sum(self.tokens.values())
        return {
            "prompt_tokens": self.prompt_tokens,
            "completion_tokens": generated,
            "total_tokens": self.prompt_tokens + generated,
        }

    def whole(self) -> dict[str, Any]:
        """Return the complete response."""
        choices: list[dict[str, Any]] = []
        for index in range(self.count):
            text = self.texts[index]
            said: dict[str, Any] = (
                {"message": {"role": "assistant", "content": text, "refusal": None}} if self.chat else {"text": text}
            )
            choices.append({"index": index, **said, "finish_reason": self.reasons[index], "logprobs": None})
        kind = "chat.completion" if self.chat else "text_completion"
        return {**self.facts, "object": kind, "choices": choices, "usage": self.usage()}

    def chunk(self, choices: list[dict[str, Any]], **more: Any) -> bytes:
        """Return an event of a stream."""
        kind = "chat.completion.chunk" if self.chat else "text_completion"
        return _event({**self.facts, "object": kind, "choices": choices, **more})

    def choice(self, index: int, text: str, reason: str | None, *, first: bool = False) -> dict[str, Any]:
        """Return the event for a new piece of a text."""
        if not self.chat:
            return {"index": index, "text": text, "finish_reason": reason, "logprobs": None}
        delta = {"role": "assistant", "content": ""} if first else {"content": text} if text else {}
        return {"index": index, "delta": delta, "finish_reason": reason, "logprobs": None}


def _event(value: dict[str, Any]) -> bytes:
    return f"data: {json.dumps(value, ensure_ascii=False)}\n\n".encode()


class EventStream(Response):
    """Stream texts as server-sent events, each piece as soon as it is generated.

    The status is sent with the first piece, so that a request that fails before it gets an error of its own.
    """

    media_type = "text/event-stream"

    def __init__(self, generation: Generation, answer: Answer, with_usage: bool) -> None:
        super().__init__(headers={"Cache-Control": "no-store"})
        del self.headers["content-length"]
        self.generation, self.answer, self.with_usage = generation, answer, with_usage

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        started = False
        # A client that does not read must not keep its stream forever.
        with suppress(TimeoutError):
            async with asyncio.timeout(self.generation.seconds + LAST_SECONDS), _watched(receive, self.generation):
                async for part in self._parts():
                    if isinstance(part, ApiError):
                        if not started:
                            await part.response()(scope, receive, send)
                            return
                        part = _event(part.body())
                    if not started:
                        started = True
                        head = {"type": "http.response.start", "status": 200, "headers": self.raw_headers}
                        await send(head)
                    await send({"type": "http.response.body", "body": part, "more_body": True})
                if started:
                    await send({"type": "http.response.body", "body": b""})
                else:
                    await Response(status_code=CLIENT_LEFT)(scope, receive, send)

    async def _parts(self) -> AsyncIterator[bytes | ApiError]:
        """Yield the events, with an error as the last one if generation fails."""
        answer, usage = self.answer, {"usage": None} if self.with_usage else {}
        known: set[int] = set()
        try:
            async for event in self.generation:
                answer.add(event)
                if answer.chat and event.index not in known:
                    known.add(event.index)
                    yield answer.chunk([answer.choice(event.index, "", None, first=True)], **usage)
                if event.text:
                    yield answer.chunk([answer.choice(event.index, event.text, None)], **usage)
                if event.reason:
                    yield answer.chunk([answer.choice(event.index, "", event.reason)], **usage)
        except GenerationError as error:
            yield _said(error)
            return
        if self.generation.unfinished:  # the client has left
            return
        if self.with_usage:
            yield answer.chunk([], usage=answer.usage())
        yield b"data: [DONE]\n\n"


@asynccontextmanager
async def _watched(receive: Receive, generation: Generation) -> AsyncGenerator[None]:
    """Cancel a generation when its client disconnects, and at the end."""

    async def watch() -> None:
        while (await receive())["type"] != "http.disconnect":
            pass
        generation.cancel()

    watcher = asyncio.create_task(watch())
    try:
        yield
    finally:
        watcher.cancel()
        generation.cancel()


class Embedder:
    """Answer requests for embeddings, one after the other."""

    def __init__(self, name: str, network: Transformer, encoder: TokenEncoder, limits: Limits) -> None:
        self.name, self.network, self.encoder, self.limits = name, network.eval(), encoder, limits
        self.executor = BoundedExecutor("embed", PREPARATION_QUEUE.value)
        self.beat = float("-inf")

    def is_responsive(self, seconds: float = 1.0) -> bool:
        return not self.executor.running or time.monotonic() - self.beat < seconds

    def begin_stop(self) -> None:
        self.executor.stop()

    def stop(self) -> None:
        self.executor.stop()

    def answer(self, content: bytes, until: float) -> dict[str, Any]:
        """Return the embeddings of a request."""
        wanted = _parsed(EmbeddingRequest, content, self.name)
        _require(PROMPT_CHARACTERS, sum(map(len, wanted.texts)), "the input", "input", 413)
        data: list[dict[str, Any]] = []
        tokens = 0
        for index, text in enumerate(wanted.texts):
            self.beat = time.monotonic()
            if self.beat > until:
                problem = f"no answer within {self.limits.seconds:g} s; send fewer texts at a time"
                raise ApiError(408, problem, param="input", code="deadline_exceeded")
            vector, count = self._embedded(text)
            tokens += count
            if not np.isfinite(vector).all():
                problem = "it has no tokens" if not count else "the model's output for it is not finite"
                raise ApiError(400 if not count else 500, f"text {index} cannot be embedded: {problem}", param="input")
            as_text = wanted.encoding_format == "base64"
            embedding = base64.b64encode(vector.astype("<f4").tobytes()).decode() if as_text else vector.tolist()
            data.append({"object": "embedding", "index": index, "embedding": embedding})
        usage = {"prompt_tokens": tokens, "total_tokens": tokens}
        return {"object": "list", "data": data, "model": self.name, "usage": usage}

    def _embedded(self, text: str) -> tuple[np.ndarray, int]:
        """Return the embedding [D] of a text, and its number of tokens."""
        ids = self.encoder.tokenizer(text, truncation=True, max_length=self.encoder.max_length, return_tensors="pt")
        inputs = {"input_ids": ids["input_ids"], "attention_mask": ids["attention_mask"]}
        count = int(inputs["attention_mask"].sum())
        if not count:
            return np.array([np.nan]), 0
        with evaluating(self.network), torch.no_grad():
            return self.network.hidden(inputs)[0].float().mean(0).numpy(), count


def _add_embeddings(app: FastAPI, embedder: Embedder, body: Body) -> Embedder:
    @app.post("/v1/embeddings", openapi_extra=request_body(EmbeddingRequest))
    async def embeddings(request: Request) -> dict[str, Any]:  # pyright: ignore[reportUnusedFunction]
        """Return the mean of the last layer's hidden states over each text's tokens."""
        content = await _content(request, body)
        until = time.monotonic() + embedder.limits.seconds
        return await _beside(embedder.executor, lambda: embedder.answer(content, until))

    return embedder


Found = TypeVar("Found")


async def _beside(executor: BoundedExecutor, call: Callable[[], Found]) -> Found:
    try:
        return await executor.run(call)
    except ExecutorFull:
        raise ApiError(503, "too many requests wait; try again in a moment", code="queue_full") from None


async def _content(request: Request, body: Body) -> bytes:
    """Read the request's JSON, whose size is limited by that of a prompt."""
    try:
        content = await body(request)
    except Refused as error:
        raise ApiError(error.status, f"{error.problem}; {error.fix}") from None
    most = ESCAPED * PROMPT_CHARACTERS.value + REST
    if len(content) > most:
        raise ApiError(
            413,
            f"the request has {len(content):,} bytes; at most {most:,} are read, as a prompt may have "
            f"{PROMPT_CHARACTERS.value:,} characters (limit {PROMPT_CHARACTERS.name})",
        )
    return content


def _parsed(kind: type[Asked], content: bytes, name: str) -> Asked:
    """Parse and validate the request.

    Raises:
        ApiError: a field is not as the API has it, or not supported; or it asks for another model.
    """
    try:
        found = kind.model_validate_json(content)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        unsupported = first.get("ctx", {}).get("field")
        place = ".".join(map(str, first["loc"] if unsupported is None else (*first["loc"], unsupported)))[:200]
        problem = "the field is unknown" if first["type"] == "extra_forbidden" else first["msg"]
        raise ApiError(400, f"{place or 'the body'}: {problem}", param=place or None) from None
    wanted = getattr(found, "model", None)
    if wanted not in (None, "", name):
        raise ApiError(404, f"there is no model {wanted[:100]!r}, only {name!r}", param="model", code="model_not_found")
    return found


def _require(limit: Limit, found: int, what: str, param: str, status: int, code: str | None = None) -> None:
    if found > limit.value:
        problem = f"{what} has {found:,} {limit.unit}; at most {limit.value:,} are allowed (limit {limit.name})"
        raise ApiError(status, problem, param=param, code=code)


def _said(error: GenerationError) -> ApiError:
    return ApiError(error.status, str(error), code=error.code)
