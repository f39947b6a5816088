"""Define the supported requests of OpenAI's API. Any other field is refused by name; none is ignored."""

from __future__ import annotations

import json
from typing import Annotated, Any, ClassVar, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator
from pydantic_core import PydanticCustomError

Penalty = Annotated[float, Field(ge=-2, le=2)]
Bias = Annotated[float, Field(ge=-100, le=100)]
StopText = Annotated[str, Field(min_length=1, max_length=1000)]


class Honoured(BaseModel):
    """Define a request, or a part of one, whose fields are honoured or refused."""

    model_config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)
    only_defaults: ClassVar[dict[str, tuple[Any, ...]]] = {}
    """Unsupported fields of the API, and the values that have no effect."""

    @model_validator(mode="before")
    @classmethod
    def _refuse_unsupported(cls, value: Any) -> Any:
        if not isinstance(value, dict):
            return value
        for name, accepted in cls.only_defaults.items():
            if name in value and not any(
                type(value[name]) is type(entry) and value[name] == entry for entry in accepted
            ):
                raise PydanticCustomError(
                    "not_supported",
                    "{field} is not supported; leave it out or send {accepted}",
                    {"field": name, "accepted": " or ".join(map(json.dumps, accepted))},
                )
        # In this API, null means that a field is omitted.
        kept = {key: entry for key, entry in value.items() if key not in cls.only_defaults}
        return {key: entry for key, entry in kept.items() if entry is not None or key not in cls.model_fields}


def _joined(value: Any) -> Any:
    """Join text parts with line breaks; return other values unchanged."""
    if not isinstance(value, list):
        return value
    for part in value:
        if not (isinstance(part, dict) and part.keys() == {"type", "text"} and part["type"] == "text"):
            raise PydanticCustomError("text_only", 'only parts {{"type": "text", "text": …}} can be read')
    texts = [part["text"] for part in value]
    return "\n".join(texts) if all(isinstance(text, str) for text in texts) else texts


class Message(Honoured):
    """Define one turn of a conversation."""

    only_defaults = {
        "name": (None,),
        "refusal": (None,),
        "audio": (None,),
        "annotations": (None, []),
        "tool_calls": (None, []),
        "function_call": (None,),
        "tool_call_id": (None,),
    }
    role: Literal["system", "developer", "user", "assistant"]
    content: Annotated[str, BeforeValidator(_joined)]

    def to_turn(self) -> dict[str, str]:
        """Return the role for chat templates: OpenAI's developer is the system."""
        return {"role": "system" if self.role == "developer" else self.role, "content": self.content}


class StreamOptions(Honoured):
    """Define the options of a stream."""

    only_defaults = {"include_obfuscation": (None, False)}
    include_usage: bool = False


class GenerationRequest(Honoured):
    """Define the common fields of chat and text completions."""

    common_defaults: ClassVar[dict[str, tuple[Any, ...]]] = {
        "logprobs": (None, False),
        "metadata": (None,),
        "store": (None, False),
        "service_tier": (None, "auto", "default"),
    }
    model: str | None = None
    max_tokens: Annotated[int, Field(ge=1)] | None = None
    temperature: Annotated[float, Field(ge=0, le=2)] = 0.8
    top_p: Annotated[float, Field(gt=0, le=1)] = 0.95
    seed: Annotated[int, Field(ge=-(2**63), lt=2**63)] = 0
    stream: bool = False
    stream_options: StreamOptions | None = None
    n: Annotated[int, Field(ge=1)] = 1
    stop: StopText | Annotated[list[StopText], Field(max_length=4)] = []
    logit_bias: Annotated[dict[str, Bias], Field(max_length=1024)] = {}
    presence_penalty: Penalty = 0.0
    frequency_penalty: Penalty = 0.0
    user: str | None = None
    """Accepted without effect: answers do not depend on the user."""

    @property
    def most(self) -> int | None:
        """Return the most tokens to generate."""
        return self.max_tokens

    @property
    def most_field(self) -> str:
        """Return the name of the field that sets it."""
        return "max_tokens"

    @property
    def stops(self) -> tuple[str, ...]:
        """Return the stop texts."""
        return (self.stop,) if isinstance(self.stop, str) else tuple(self.stop)


class ChatRequest(GenerationRequest):
    """Define a chat completion: a conversation to answer."""

    only_defaults = {
        **GenerationRequest.common_defaults,
        "top_logprobs": (None,),
        "response_format": (None, {"type": "text"}),
        "tools": (None, []),
        "tool_choice": (None, "none", "auto"),
        "parallel_tool_calls": (None, True),
        "functions": (None, []),
        "function_call": (None, "none", "auto"),
        "modalities": (None, ["text"]),
        "audio": (None,),
        "prediction": (None,),
        "reasoning_effort": (None, "none"),
        "verbosity": (None, "medium"),
        "web_search_options": (None,),
        "moderation": (None,),
    }
    messages: Annotated[list[Message], Field(min_length=1, max_length=1000)]
    max_completion_tokens: Annotated[int, Field(ge=1)] | None = None
    safety_identifier: str | None = None
    """Accepted without effect, as `user`."""
    prompt_cache_key: str | None = None
    """Accepted without effect: it changes no answer of OpenAI's either."""

    @property
    def most(self) -> int | None:
        return self.max_completion_tokens or self.max_tokens

    @property
    def most_field(self) -> str:
        return "max_completion_tokens" if self.max_completion_tokens else "max_tokens"

    @model_validator(mode="after")
    def _one_length(self) -> ChatRequest:
        if None not in (self.max_tokens, self.max_completion_tokens) and self.max_tokens != self.max_completion_tokens:
            raise PydanticCustomError("two_lengths", "max_tokens and max_completion_tokens are not the same; send one")
        return self


class CompletionRequest(GenerationRequest):
    """Define a text completion: texts to continue."""

    only_defaults = {
        **GenerationRequest.common_defaults,
        "best_of": (None, 1),
        "echo": (None, False),
        "suffix": (None, ""),
    }
    prompt: str | Annotated[list[str], Field(min_length=1)]

    @property
    def prompts(self) -> list[str]:
        """Return the texts to continue."""
        return [self.prompt] if isinstance(self.prompt, str) else self.prompt


class EmbeddingRequest(Honoured):
    """Define a request for embeddings."""

    only_defaults = {"dimensions": (None,)}
    model: str | None = None
    input: str | Annotated[list[str], Field(min_length=1, max_length=256)]
    encoding_format: Literal["float", "base64"] = "float"
    user: str | None = None

    @property
    def texts(self) -> list[str]:
        """Return the texts to embed."""
        return [self.input] if isinstance(self.input, str) else self.input


def request_body(kind: type[BaseModel]) -> dict[str, Any]:
    """Return the schema of a request for the API documentation."""
    schema = kind.model_json_schema(ref_template="#/components/schemas/{model}")
    inner = schema.pop("$defs", {})
    text = json.dumps(schema)
    for name, part in inner.items():  # few and flat: inlined
        text = text.replace(json.dumps({"$ref": f"#/components/schemas/{name}"}), json.dumps(part))
    return {"requestBody": {"required": True, "content": {"application/json": {"schema": json.loads(text)}}}}
