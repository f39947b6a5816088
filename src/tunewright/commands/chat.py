"""`tunewright chat`: write with a saved language model in the terminal; its words appear as they are chosen."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tunewright.errors import ArtifactError
from tunewright.inference.model import load_model
from tunewright.models.hub.generate import generate
from tunewright.models.hub.hf_network import Transformer
from tunewright.tasks.language_model.encoder import CausalTextEncoder

# A character of several bytes that is not complete yet is decoded to this.
UNFINISHED = "\ufffd"
PROMPT = "> "


@dataclass(frozen=True, kw_only=True)
class Drawing:
    """How the next token is chosen; as in `generate`."""

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
    """Answer each line; a model without a chat template writes on from it instead.

    Args:
        lines: what the person says; None: asked for in the terminal.

    Raises:
        ArtifactError: it is no language model.
    """
    model = load_model(folder)
    network, encoder = model.network, model.preprocessor.inputs
    if not isinstance(network, Transformer) or not isinstance(encoder, CausalTextEncoder):
        raise ArtifactError(
            f"a model for {model.preprocessor.task.name} does not write",
            file=folder,
            expected="a language model",
            fix="use `tunewright predict` with it",
        )
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
    """What is written after `ids`, in whole characters."""
    text = Detokenizer(encoder.tokenizer)
    chosen = generate(
        network,
        ids,
        end=ends(network, encoder),
        most=drawing.most,
        context=encoder.limit,
        temperature=drawing.temperature,
        top_p=drawing.top_p,
        seed=drawing.seed,
    )
    for token in chosen:
        if piece := text.add(token):
            yield piece


class Detokenizer:
    """The text of tokens that come one at a time, in whole characters.

    How a token is written can depend on the one before it, so the last ones that were written out are decoded once more
    with what is new; all the tokens before them are not.
    """

    def __init__(self, tokenizer: Any) -> None:
        self.tokenizer = tokenizer
        self.known: list[int] = []
        """Tokens that were written out last, decoded again for what follows them."""
        self.fresh: list[int] = []

    def add(self, token: int) -> str:
        """What the token adds to the text; nothing while a character is not complete."""
        self.fresh.append(token)
        before, text = self._text(self.known), self._text(self.known + self.fresh)
        if len(text) <= len(before) or text.endswith(UNFINISHED):
            return ""
        self.known, self.fresh = self.fresh, []
        return text[len(before) :]

    def _text(self, tokens: list[int]) -> str:
        return self.tokenizer.decode(tokens, skip_special_tokens=True)


def ends(network: Transformer, encoder: CausalTextEncoder) -> set[int]:
    """The tokens that end what is written: the tokenizer's, and those that the model's own settings name."""
    settings = getattr(network.core, "generation_config", None)
    named = getattr(settings, "eos_token_id", None)
    return {encoder.end, *([named] if isinstance(named, int) else named or [])}


def asked() -> Iterator[str]:
    """Lines of the terminal until it is closed, or of whatever stands in its place."""
    if not sys.stdin.isatty():
        yield from sys.stdin
        return
    while True:
        try:
            yield input(PROMPT)
        except EOFError:
            return
