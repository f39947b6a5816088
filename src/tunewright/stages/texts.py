"""What became of the texts: how many tokens they are, what was cut, and how well the tokenizer suits them."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from tunewright.data.batching import Examples, TokenExamples
from tunewright.data.tokenizer import MEASURED, measure_tokenizer
from tunewright.stages.console import Screen
from tunewright.stages.ingredients import Ingredients
from tunewright.tasks.tokens import TextEncoder


def describe_texts(ingredients: Ingredients, train: Examples, screen: Screen) -> dict[str, Any] | None:
    """The summary's "texts", said on the screen too; None where the inputs are no texts.

    Args:
        train: the training examples.
    """
    encoder, prepared = ingredients.preprocessor.inputs, ingredients.prepared
    if not isinstance(encoder, TextEncoder) or not isinstance(train, TokenExamples):
        return None
    split = "valid" if prepared.rows("valid") else "train"
    table = prepared.table(split, encoder.columns).slice(0, MEASURED)
    texts = [text for name in encoder.columns for text in encoder.texts(table, name)]
    facts = measure_tokenizer(encoder.tokenizer, texts, len(encoder.tokenizer))
    screen.say(
        f"tokenizer: {facts.vocabulary:,} pieces; on {facts.texts:,} {_SPLITS[split]} texts "
        f"{facts.bytes_per_token:.2f} bytes a token, {facts.unknown_rate:.2%} unknown"
    )
    rows, tokens = prepared.rows("train"), int(train.lengths.sum())
    found = f"{rows:,} training texts, {tokens:,} tokens"
    if encoder.passages:
        found += f", in {len(train):,} passages of at most {encoder.max_length}"
    screen.say(found)
    if train.cut:
        screen.warn(
            f"{train.cut:,} training texts are longer than {encoder.max_length} tokens and are cut; "
            f"model.max_length: {encoder.limit} is the most"
        )
    if train.empty:
        screen.warn(f"{train.empty:,} training texts hold no token that the tokenizer knows and are no examples")
    return {
        "tokenizer": {**asdict(facts), "measured_on": split},
        "tokens": tokens,
        "examples": len(train),
        "max_length": encoder.max_length,
        "cut": train.cut,
        "empty": train.empty,
    }


_SPLITS = {"valid": "validation", "train": "training"}
