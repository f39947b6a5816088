"""Read what a person says to a model that talks."""

from __future__ import annotations

from tunewright.tasks.language_model.chat_encoder import ChatEncoder
from tunewright.tasks.text.request import TextRequest


class ChatRequest(TextRequest[ChatEncoder]):
    """Bare texts, each the first turn of a conversation, besides rows by their columns."""

    @property
    def columns(self) -> list[str]:
        return ["prompt"]

    @property
    def wanted(self) -> str:
        return "a text, or a JSON object such as {prompt: text}"
