"""Run `tunewright chat`: chat with a saved language model in the terminal; the text is streamed."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tunewright.errors import ArtifactError
from tunewright.inference.model import load_model
from tunewright.models.hub.generate import Sampling, generate
from tunewright.models.hub.hf_network import Transformer
from tunewright.tasks.language_model.encoder import CausalTextEncoder
from tunewright.tasks.language_model.writer import language_model

# An incomplete character of several bytes is decoded to this.
UNFINISHED = "\ufffd"
PROMPT = "> "


@dataclass(frozen=True, kw_only=True)
class Drawing:
    """Configure sampling; as in `generate`."""

    temperature: float = 0.8
    top_p: float = 0.95
    most: int = 512
    seed: int = 0


def chat(
    folder: Path,
    drawing: Drawing,
    *,
    lines: Iterable[str] | None = None,
    write: Callable[[str], Any] = sys.stdout.write,
) -> None:
    """Answer each line; a model without a chat template continues it instead.

    Args:
        lines: the user's turns; None: read from the terminal.

    Raises:
        ArtifactError: it is not a language model.
    """
    model = load_model(folder)
    writer = language_model(model.network, model.preprocessor)
    if writer is None:
        raise ArtifactError(
            f"a model for {model.preprocessor.task.name} does not generate text",
            file=folder,
            expected="a language model",
            fix="use `tunewright predict` with it",
        )
    network, encoder = writer.network, writer.encoder
    talks = encoder.tokenizer.chat_template is not None
    turns: list[dict[str, str]] = []
    for line in asked() if lines is None else lines:
        text = line.rstrip("\n")
        if not text.strip():
            continue
        if talks:
            turns.append({"role": "user", "content": text})
            ids = encoder.tokenizer.apply_chat_template(turns, add_generation_prompt=True, return_dict=False)
        else:
            ids = encoder.begin + encoder.tokenizer(text, add_special_tokens=False)["input_ids"]
            write(text)
        answer = ""
        for piece in pieces(network, encoder, ids, drawing):
            answer += piece
            write(piece)
            sys.stdout.flush()
        write("\n")
        turns.append({"role": "assistant", "content": answer})


def pieces(network: Transformer, encoder: CausalTextEncoder, ids: list[int], drawing: Drawing) -> Iterator[str]:
    """Yield the generated text after `ids`, in whole characters."""
    text = Detokenizer(encoder.tokenizer)
    chosen = generate(
        network,
        ids,
        sampling=Sampling(temperature=drawing.temperature, top_p=drawing.top_p, seed=drawing.seed),
        end=ends(network, encoder),
        most=drawing.most,
        context=encoder.limit,
    )
    for token in chosen:
        if piece := text.add(token):
            yield piece


class Detokenizer:
    """Decode a stream of tokens to text, in whole characters.

    The text of a token can depend on the previous one, so the tokens of the last piece are decoded again with the new
    ones; earlier tokens are not.
    """

    def __init__(self, tokenizer: Any) -> None:
        self.tokenizer = tokenizer
        self.known: list[int] = []
        """Tokens of the last piece, decoded again with what follows."""
        self.fresh: list[int] = []

    def add(self, token: int) -> str:
        """Return the text that a token adds; empty while a character is incomplete."""
        self.fresh.append(token)
        before, text = self._text(self.known), self._text(self.known + self.fresh)
        if len(text) <= len(before) or text.endswith(UNFINISHED):
            return ""
        self.known, self.fresh = self.fresh, []
        return text[len(before) :]

    def _text(self, tokens: list[int]) -> str:
        return self.tokenizer.decode(tokens, skip_special_tokens=True)


def ends(network: Transformer, encoder: CausalTextEncoder) -> set[int]:
    """Return the end tokens: the tokenizer's, and those of the model's generation config."""
    settings = getattr(network.core, "generation_config", None)
    named = getattr(settings, "eos_token_id", None)
    return {encoder.end, *([named] if isinstance(named, int) else named or [])}


def asked() -> Iterator[str]:
    """Yield lines of the terminal until it is closed, or of standard input."""
    if not sys.stdin.isatty():
        yield from sys.stdin
        return
    while True:
        try:
            yield input(PROMPT)
        except EOFError:
            return
