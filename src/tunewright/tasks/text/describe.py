"""Describe the training texts: how many tokens they are, what was cut, and how well the tokenizer suits them."""

from __future__ import annotations

from dataclasses import asdict

from tunewright.console import Console
from tunewright.data.batches.batch import Examples
from tunewright.data.batches.examples import TokenExamples
from tunewright.data.prepared import Prepared
from tunewright.data.text.tokenizer import MEASURED, measure_tokenizer
from tunewright.runs.summary.data import TextSummary, TokenizerSummary
from tunewright.tasks.text.encoder import TextEncoder, TokenEncoder

SPLITS = {"valid": "validation", "train": "training"}


def describe_texts(encoder: TextEncoder, prepared: Prepared, train: Examples, console: Console) -> TextSummary:
    """Print and return how many texts and tokens there are, and how many are cut or empty."""
    assert isinstance(train, TokenExamples)
    facts = describe_tokenizer(prepared, encoder, console)
    rows, tokens = prepared.rows("train"), int(train.tokens.lengths.sum())
    found = f"{rows:,} training texts, {tokens:,} tokens"
    if encoder.passages:
        found += f", in {len(train):,} passages of at most {encoder.max_length}"
    console.info(found)
    if train.cut:
        console.warning(
            f"{train.cut:,} training texts are longer than {encoder.max_length} tokens and are cut; "
            f"model.max_length: {encoder.limit} is the most"
        )
    if train.empty:
        console.warning(f"{train.empty:,} training texts hold no token that the tokenizer knows and are no examples")
    return TextSummary(
        tokenizer=facts,
        tokens=tokens,
        examples=len(train),
        max_length=encoder.max_length,
        cut=train.cut,
        empty=train.empty,
    )


def describe_tokenizer(prepared: Prepared, encoder: TokenEncoder, console: Console) -> TokenizerSummary:
    """Print and return how the tokenizer does on texts that it was not trained on."""
    split = "valid" if prepared.rows("valid") else "train"
    table = next(prepared.pieces(split, encoder.columns, rows=MEASURED))
    texts = [text for name in encoder.columns for text in encoder.texts(table, name)]
    facts = measure_tokenizer(encoder.tokenizer, texts, len(encoder.tokenizer))
    console.info(
        f"tokenizer: {facts.vocabulary:,} tokens; on {facts.texts:,} {SPLITS[split]} texts "
        f"{facts.bytes_per_token:.2f} bytes a token, {facts.unknown_rate:.2%} unknown"
    )
    return TokenizerSummary(**asdict(facts), measured_on=split)
