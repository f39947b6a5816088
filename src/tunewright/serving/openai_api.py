"""What clients of OpenAI's API expect: chat, completions and embeddings, as far as the model has them."""

from __future__ import annotations

import asyncio
import json
import threading
import time
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from typing import Annotated, Any, Literal, TypeVar

import torch
from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse, Response, StreamingResponse
from pydantic import BaseModel, Field, ValidationError

from tunewright.models.network import evaluating
from tunewright.models.transformer import Transformer
from tunewright.serving.limits import Limits, Refused
from tunewright.stages.chat import Drawing, pieces
from tunewright.stages.predict import Model
from tunewright.tasks.causal_tokens import WriterEncoder
from tunewright.tasks.tokens import TokenEncoder

Asked = TypeVar("Asked", bound=BaseModel)
Temperature = Annotated[float, Field(ge=0, le=2)]
Share = Annotated[float, Field(gt=0, le=1)]


class Turn(BaseModel):
    """One turn of a conversation."""

    role: Literal["system", "user", "assistant"]
    content: str


class Wanted(BaseModel):
    """What both kinds of writing have in common."""

    model: str = ""
    max_tokens: Annotated[int, Field(ge=1, le=100_000)] | None = None
    max_completion_tokens: Annotated[int, Field(ge=1, le=100_000)] | None = None
    temperature: Temperature = 0.8
    top_p: Share = 0.95
    seed: Annotated[int, Field(ge=0, lt=2**63)] = 0
    stream: bool = False
    n: Literal[1] = 1


class Chat(Wanted):
    """A conversation to be answered."""

    messages: Annotated[list[Turn], Field(min_length=1, max_length=1000)]


class Completion(Wanted):
    """A text to be written on from."""

    prompt: str


class Embedding(BaseModel):
    """Texts whose vectors are wanted."""

    model: str = ""
    input: str | Annotated[list[str], Field(min_length=1, max_length=256)]
    encoding_format: Literal["float"] = "float"


def add_openai(
    app: FastAPI,
    model: Model,
    *,
    name: str,
    limits: Limits,
    body: Callable[[Request], Awaitable[bytes]],
) -> None:
    """Add the routes that the model can answer."""
    network, encoder = model.network, model.preprocessor.inputs
    if not isinstance(network, Transformer) or not isinstance(encoder, TokenEncoder):
        return
    began = int(time.time())
    writing = threading.Lock()  # one text at a time: two would each take twice as long

    async def asked(request: Request, kind: type[Asked]) -> Asked:
        try:
            return kind.model_validate_json(await body(request))
        except ValidationError as error:
            first = error.errors()[0]
            place = ".".join(map(str, first["loc"])) or "the body"
            raise Refused(422, f"{place}: {first['msg']}", "correct it as the API's reference has it") from None

    @app.get("/v1/models")
    async def models() -> dict[str, Any]:  # pyright: ignore[reportUnusedFunction]
        return {"object": "list", "data": [{"id": name, "object": "model", "created": began, "owned_by": "tunewright"}]}

    if not isinstance(encoder, WriterEncoder):

        @app.post("/v1/embeddings", openapi_extra=_schema(Embedding))
        async def embeddings(request: Request) -> dict[str, Any]:  # pyright: ignore[reportUnusedFunction]
            """The mean of the last layer's states over each text's tokens."""
            wanted = await asked(request, Embedding)
            texts = [wanted.input] if isinstance(wanted.input, str) else wanted.input
            vectors, tokens = await asyncio.to_thread(_embedded, network, encoder, texts)
            data = [
                {"object": "embedding", "index": index, "embedding": vector} for index, vector in enumerate(vectors)
            ]
            return {
                "object": "list",
                "data": data,
                "model": name,
                "usage": {"prompt_tokens": tokens, "total_tokens": tokens},
            }

        return

    async def answered(wanted: Wanted, ids: list[int], kind: str) -> Response:
        most = min(wanted.max_completion_tokens or wanted.max_tokens or limits.tokens, limits.tokens)
        drawing = Drawing(temperature=wanted.temperature, top_p=wanted.top_p, most=most, seed=wanted.seed)
        facts = {"id": f"{kind}-{uuid.uuid4().hex[:24]}", "created": int(time.time()), "model": name}
        chat = kind == "chatcmpl"

        def written() -> Iterator[str]:
            with writing:
                until = time.monotonic() + limits.seconds
                for piece in pieces(network, encoder, ids, drawing):
                    yield piece
                    if time.monotonic() > until:
                        return

        if wanted.stream:
            return StreamingResponse(_streamed(written(), facts, chat), media_type="text/event-stream")
        text = await asyncio.to_thread(lambda: "".join(written()))
        count = len(encoder.tokenizer(text, add_special_tokens=False)["input_ids"])
        usage = {"prompt_tokens": len(ids), "completion_tokens": count, "total_tokens": len(ids) + count}
        reason = "length" if count >= most else "stop"
        said: dict[str, Any] = {"message": {"role": "assistant", "content": text}} if chat else {"text": text}
        choice = {"index": 0, **said, "finish_reason": reason, "logprobs": None}
        return JSONResponse(
            {**facts, "object": "chat.completion" if chat else "text_completion", "choices": [choice], "usage": usage}
        )

    if encoder.tokenizer.chat_template is not None:

        @app.post("/v1/chat/completions", openapi_extra=_schema(Chat))
        async def chat(request: Request) -> Response:  # pyright: ignore[reportUnusedFunction]
            """The assistant's next turn."""
            wanted = await asked(request, Chat)
            turns = [turn.model_dump() for turn in wanted.messages]
            try:
                ids = encoder.tokenizer.apply_chat_template(turns, add_generation_prompt=True, return_dict=False)
            except Exception as error:  # a template is a program of the model's, and raises what it likes
                raise Refused(
                    422, f"the model's template refuses these turns: {error}", "let user and assistant take turns"
                ) from None
            return await answered(wanted, ids, "chatcmpl")

    @app.post("/v1/completions", openapi_extra=_schema(Completion))
    async def complete(request: Request) -> Response:  # pyright: ignore[reportUnusedFunction]
        """How the text goes on."""
        wanted = await asked(request, Completion)
        ids = encoder.begin + encoder.tokenizer(wanted.prompt, add_special_tokens=False)["input_ids"]
        if not ids:
            raise Refused(422, "there is no text to go on from", "send a prompt")
        return await answered(wanted, ids, "cmpl")


async def _streamed(written: Iterator[str], facts: dict[str, Any], chat: bool) -> AsyncIterator[str]:
    """Each piece as an event, as soon as it is there."""
    kind = "chat.completion.chunk" if chat else "text_completion"

    def event(piece: str | None, reason: str | None) -> str:
        said: dict[str, Any] = {"delta": {} if piece is None else {"content": piece}} if chat else {"text": piece or ""}
        choice = {"index": 0, **said, "finish_reason": reason}
        return f"data: {json.dumps({**facts, 'object': kind, 'choices': [choice]}, ensure_ascii=False)}\n\n"

    if chat:
        first = {"index": 0, "delta": {"role": "assistant", "content": ""}, "finish_reason": None}
        yield f"data: {json.dumps({**facts, 'object': kind, 'choices': [first]})}\n\n"
    while (piece := await asyncio.to_thread(next, written, None)) is not None:
        yield event(piece, None)
    yield event(None, "stop")
    yield "data: [DONE]\n\n"


def _embedded(network: Transformer, encoder: TokenEncoder, texts: list[str]) -> tuple[list[list[float]], int]:
    """[N, D] and the number of tokens read."""
    found: list[list[float]] = []
    tokens = 0
    with evaluating(network), torch.no_grad():
        for text in texts:
            ids = encoder.tokenizer(text, truncation=True, max_length=encoder.max_length, return_tensors="pt")
            inputs = {"input_ids": ids["input_ids"], "attention_mask": ids["attention_mask"]}
            tokens += int(inputs["attention_mask"].sum())
            found.append(network.hidden(inputs)[0].float().mean(0).tolist())
    return found, tokens


def _schema(kind: type[BaseModel]) -> dict[str, Any]:
    schema = kind.model_json_schema(ref_template="#/components/schemas/{model}")
    inner = schema.pop("$defs", {})
    text = json.dumps(schema)
    for name, part in inner.items():  # few and flat: written out where they are used
        text = text.replace(json.dumps({"$ref": f"#/components/schemas/{name}"}), json.dumps(part))
    return {"requestBody": {"required": True, "content": {"application/json": {"schema": json.loads(text)}}}}
