"""Describe what a language model learns from, before it costs anything: sizes, and the first conversation in colour."""

from __future__ import annotations

from itertools import groupby

import numpy as np
from rich.text import Text

from tunewright.console import Console
from tunewright.data.batches.batch import Examples
from tunewright.data.batches.mixing import MixedExamples
from tunewright.data.batches.packing import PackedExamples
from tunewright.data.prepared import Prepared
from tunewright.runs.summary.data import MixedSource, TextSummary
from tunewright.tasks.language_model.chat_encoder import ChatEncoder, ChatExamples, SupervisedChatEncoder
from tunewright.tasks.language_model.chat_template import Rendered
from tunewright.tasks.language_model.encoder import CausalEncoder
from tunewright.tasks.language_model.preference_encoder import PreferenceEncoder, PreferenceExamples
from tunewright.tasks.text.describe import describe_tokenizer

# Where there is no colour the marks show what is trained.
OPENED, CLOSED = "⟦", "⟧"
LONGEST = 1500


def describe_documents(encoder: CausalEncoder, prepared: Prepared, train: Examples, console: Console) -> TextSummary:
    """Print and return how many tokens there are, how well the tokenizer suits them, and what an epoch reads of each source."""
    whole = train.examples if isinstance(train, MixedExamples) else train
    assert isinstance(whole, PackedExamples)
    facts = describe_tokenizer(prepared, encoder, console)
    tokens = len(whole.tokens)
    console.info(
        f"{len(whole.documents):,} training texts, {tokens:,} tokens, in {len(whole):,} rows of {encoder.max_length}; "
        "no token attends to another text"
    )
    return TextSummary(
        tokenizer=facts,
        tokens=tokens,
        examples=len(train),
        max_length=encoder.max_length,
        mix=_mix(train, console) if isinstance(train, MixedExamples) else None,
    )


def describe_chat(encoder: SupervisedChatEncoder, prepared: Prepared, train: Examples, console: Console) -> TextSummary:
    """Print and return how many tokens there are and are trained, and show the first conversation."""
    assert isinstance(train, ChatExamples)
    tokens, trained, count = train.tokens, train.trained_tokens, len(train.conversations)
    console.info(
        f"{count:,} conversations ({encoder.shape}), {tokens:,} tokens, of which the assistant's {trained:,} are trained, "
        f"in {len(train):,} rows of at most {encoder.max_length}; no token looks into another conversation"
    )
    _warn_of_cuts(train, encoder, console)
    show_conversation(encoder, train.conversations[0], "the first conversation", console)
    return TextSummary(
        tokens=tokens, trained=trained, examples=len(train), max_length=encoder.max_length, cut=train.cut
    )


def describe_pairs(encoder: PreferenceEncoder, prepared: Prepared, train: Examples, console: Console) -> TextSummary:
    """Print and return how many tokens there are and are compared, and show the first pair."""
    assert isinstance(train, PreferenceExamples)
    tokens, compared = train.texts.tokens, train.texts.trained_tokens
    console.info(
        f"{len(train):,} pairs of answers ({encoder.shape}), {tokens:,} tokens, of which the answers' {compared:,} count"
    )
    _warn_of_cuts(train.texts, encoder, console)
    _show_pair(encoder, train, console)
    return TextSummary(
        tokens=tokens, trained=compared, examples=len(train), max_length=encoder.max_length, cut=train.texts.cut
    )


def preview_chat(encoder: SupervisedChatEncoder, prepared: Prepared, console: Console) -> None:
    """Write every training conversation by the template, and show the first. Raises DataError when one does not fit."""
    found = encoder.examples(prepared.table("train"), None)
    _fits(encoder, prepared, console)
    show_conversation(encoder, found.conversations[0], "the first conversation", console)


def preview_pairs(encoder: PreferenceEncoder, prepared: Prepared, console: Console) -> None:
    """Write every training pair by the template, and show the first. Raises DataError when one does not fit."""
    found = encoder.examples(prepared.table("train"), None)
    _fits(encoder, prepared, console)
    _show_pair(encoder, found, console)


def show_conversation(encoder: ChatEncoder, found: Rendered, title: str, console: Console) -> None:
    """Print a conversation; what is trained is marked, and green where the terminal has colours."""
    text = Text()
    pairs = zip(found.ids, found.trained, strict=True)
    for trained, group in groupby(pairs, key=lambda pair: pair[1]):
        written = encoder.tokenizer.decode([token for token, _ in group])
        text.append(f"{OPENED}{written}{CLOSED}" if trained else written, style="bold green" if trained else "dim")
    if len(text) > LONGEST:
        text = text[:LONGEST].append(" …")
    count = sum(found.trained)
    console.info(f"{title}, {len(found.ids):,} tokens; the {count:,} trained ones are marked by {OPENED} {CLOSED}:")
    console.rich.print(text)


def _show_pair(encoder: PreferenceEncoder, examples: PreferenceExamples, console: Console) -> None:
    chosen, rejected, *_ = examples.texts.conversations
    show_conversation(encoder, chosen, "the first pair, chosen", console)
    show_conversation(encoder, rejected, "the first pair, rejected", console)


def _fits(encoder: ChatEncoder, prepared: Prepared, console: Console) -> None:
    count = prepared.rows("train")
    console.info(f"· {count:,} training rows ({encoder.shape}) fit the template and the context")


def _mix(train: MixedExamples, console: Console) -> list[MixedSource]:
    """Print and return what an epoch reads of each source."""
    sizes = np.diff(train.starts).tolist()
    found: list[MixedSource] = []
    for (name, weight), size, count in zip(train.weights.items(), sizes, train.counts.tolist(), strict=True):
        found.append(MixedSource(source=name, weight=weight, rows=size, read=count, share=count / len(train)))
        console.info(f"{name}: {size:,} rows, of which an epoch reads {count:,}, {count / len(train):.0%} of all")
    return found


def _warn_of_cuts(train: ChatExamples, encoder: ChatEncoder, console: Console) -> None:
    if train.cut:
        console.warning(
            f"{train.cut:,} conversations are longer than {encoder.max_length} tokens and lose their end; "
            f"model.max_length: {encoder.limit} is the most"
        )
