"""The requests of OpenAI's API, as far as they are honoured. Any other field is refused by its name; none is ignored."""

from __future__ import annotations

import json
from typing import Annotated, Any, ClassVar, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator
from pydantic_core import PydanticCustomError

Penalty = Annotated[float, Field(ge=-2, le=2)]
Bias = Annotated[float, Field(ge=-100, le=100)]
StopText = Annotated[str, Field(min_length=1, max_length=1000)]


class Honoured(BaseModel):
    """A request, or a part of one, of which each field is honoured or refused."""

    model_config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)
    only_defaults: ClassVar[dict[str, tuple[Any, ...]]] = {}
    """Fields of the API without support here, and the values that ask for nothing."""

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
        # A null is the API's way to leave a field out.
        kept = {key: entry for key, entry in value.items() if key not in cls.only_defaults}
        return {key: entry for key, entry in kept.items() if entry is not None or key not in cls.model_fields}


def _joined(value: Any) -> Any:
    """Parts of text as one text, with line breaks between them; other values as they are."""
    if not isinstance(value, list):
        return value
    for part in value:
        if not (isinstance(part, dict) and part.keys() == {"type", "text"} and part["type"] == "text"):
            raise PydanticCustomError("text_only", 'only parts {{"type": "text", "text": …}} can be read')
    texts = [part["text"] for part in value]
    return "\n".join(texts) if all(isinstance(text, str) for text in texts) else texts


class Message(Honoured):
    """One turn of a conversation."""

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
        """As chat templates know it: what OpenAI calls the developer is the system."""
        return {"role": "system" if self.role == "developer" else self.role, "content": self.content}


class StreamOptions(Honoured):
    """What a stream is to have beside the text."""

    only_defaults = {"include_obfuscation": (None, False)}
    include_usage: bool = False


class GenerationRequest(Honoured):
    """What requests for a conversation's next turn and for a text's continuation have in common."""

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
    """Accepted without effect: nothing here depends on who asks."""

    @property
    def most(self) -> int | None:
        """Tokens to be generated at most."""
        return self.max_tokens

    @property
    def most_field(self) -> str:
        """The field that says so."""
        return "max_tokens"

    @property
    def stops(self) -> tuple[str, ...]:
        """The texts at which writing ends."""
        return (self.stop,) if isinstance(self.stop, str) else tuple(self.stop)


class ChatRequest(GenerationRequest):
    """A conversation to be answered."""

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
    """Texts to be continued."""

    only_defaults = {
        **GenerationRequest.common_defaults,
        "best_of": (None, 1),
        "echo": (None, False),
        "suffix": (None, ""),
    }
    prompt: str | Annotated[list[str], Field(min_length=1)]

    @property
    def prompts(self) -> list[str]:
        """Each text to be continued."""
        return [self.prompt] if isinstance(self.prompt, str) else self.prompt


class EmbeddingRequest(Honoured):
    """Texts whose vectors are wanted."""

    only_defaults = {"dimensions": (None,)}
    model: str | None = None
    input: str | Annotated[list[str], Field(min_length=1, max_length=256)]
    encoding_format: Literal["float", "base64"] = "float"
    user: str | None = None

    @property
    def texts(self) -> list[str]:
        """Each text to be embedded."""
        return [self.input] if isinstance(self.input, str) else self.input


def request_body(kind: type[BaseModel]) -> dict[str, Any]:
    """What the API's page says of a request."""
    schema = kind.model_json_schema(ref_template="#/components/schemas/{model}")
    inner = schema.pop("$defs", {})
    text = json.dumps(schema)
    for name, part in inner.items():  # few and flat: written out where they are used
        text = text.replace(json.dumps({"$ref": f"#/components/schemas/{name}"}), json.dumps(part))
    return {"requestBody": {"required": True, "content": {"application/json": {"schema": json.loads(text)}}}}
