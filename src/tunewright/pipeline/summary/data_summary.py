"""What became of the texts: how many tokens they are, what was cut, and how well the tokenizer suits them."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from tunewright.console import Console
from tunewright.data.batches.batch import Examples
from tunewright.data.batches.examples import TokenExamples
from tunewright.data.batches.mixing import MixedExamples
from tunewright.data.batches.packing import PackedExamples
from tunewright.data.prepared import Prepared
from tunewright.data.text.tokenizer import MEASURED, measure_tokenizer
from tunewright.pipeline.build.parts import StageParts
from tunewright.pipeline.summary.show_conversation import show_first
from tunewright.recipe.stages import StageRecipe
from tunewright.tasks.language_model.chat_encoder import ChatEncoder, ChatExamples, SupervisedChatEncoder
from tunewright.tasks.language_model.encoder import CausalEncoder
from tunewright.tasks.language_model.preference_encoder import PreferenceEncoder, PreferenceExamples
from tunewright.tasks.registry import get_task
from tunewright.tasks.speech.encoder import SpeechEncoder, SpeechExamples
from tunewright.tasks.text.encoder import TextEncoder, TokenEncoder, load_tokens, text_columns


def describe_texts(ingredients: StageParts, train: Examples, screen: Console) -> dict[str, Any] | None:
    """The summary's "texts", said on the screen too; None where the inputs are no texts.

    Args:
        train: the training examples.
    """
    encoder, prepared = ingredients.preprocessor.inputs, ingredients.prepared
    if isinstance(encoder, CausalEncoder) and isinstance(train, PackedExamples | MixedExamples):
        facts = _tokenizer(prepared, encoder, screen)
        whole = train.examples if isinstance(train, MixedExamples) else train
        tokens = len(whole.tokens)
        screen.info(
            f"{len(whole.documents):,} training texts, {tokens:,} tokens, in {len(whole):,} rows of {encoder.max_length}; "
            "no token looks into another text"
        )
        said: dict[str, Any] = {
            "tokenizer": facts,
            "tokens": tokens,
            "examples": len(train),
            "max_length": encoder.max_length,
        }
        if isinstance(train, MixedExamples):
            said["mix"] = _say_mix(train, screen)
        return said
    if isinstance(encoder, SpeechEncoder) and isinstance(train, SpeechExamples):
        screen.info(
            f"{len(train):,} recordings, {train.seconds / 3600:.2f} hours; {len(encoder.letters)} letters: "
            + "".join(encoder.letters)
        )
        if train.impossible:
            screen.warning(f"{train.impossible:,} recordings have no words or are too short for them, and are left out")
        return {
            "examples": len(train),
            "seconds": train.seconds,
            "letters": len(encoder.letters),
            "cut": train.impossible,
        }
    if isinstance(encoder, PreferenceEncoder) and isinstance(train, PreferenceExamples):
        tokens, compared = train.texts.tokens, train.texts.trained_tokens
        screen.info(
            f"{len(train):,} pairs of answers ({encoder.shape}), {tokens:,} tokens, of which the answers' {compared:,} count"
        )
        _say_cut(train.texts, encoder, screen)
        show_first(encoder, train, screen)
        facts = {"tokens": tokens, "trained": compared, "examples": len(train)}
        return {**facts, "max_length": encoder.max_length, "cut": train.texts.cut}
    if isinstance(encoder, SupervisedChatEncoder) and isinstance(train, ChatExamples):
        tokens, trained, count = train.tokens, train.trained_tokens, len(train.conversations)
        screen.info(
            f"{count:,} conversations ({encoder.shape}), {tokens:,} tokens, of which the assistant's {trained:,} are trained, "
            f"in {len(train):,} rows of at most {encoder.max_length}; no token looks into another conversation"
        )
        _say_cut(train, encoder, screen)
        show_first(encoder, train, screen)
        facts = {"tokens": tokens, "trained": trained, "examples": len(train)}
        return {**facts, "max_length": encoder.max_length, "cut": train.cut}
    if not isinstance(encoder, TextEncoder) or not isinstance(train, TokenExamples):
        return None
    facts = _tokenizer(prepared, encoder, screen)
    rows, tokens = prepared.rows("train"), int(train.tokens.lengths.sum())
    found = f"{rows:,} training texts, {tokens:,} tokens"
    if encoder.passages:
        found += f", in {len(train):,} passages of at most {encoder.max_length}"
    screen.info(found)
    if train.cut:
        screen.warning(
            f"{train.cut:,} training texts are longer than {encoder.max_length} tokens and are cut; "
            f"model.max_length: {encoder.limit} is the most"
        )
    if train.empty:
        screen.warning(f"{train.empty:,} training texts hold no token that the tokenizer knows and are no examples")
    return {
        "tokenizer": facts,
        "tokens": tokens,
        "examples": len(train),
        "max_length": encoder.max_length,
        "cut": train.cut,
        "empty": train.empty,
    }


def _say_mix(train: MixedExamples, screen: Console) -> list[dict[str, Any]]:
    """What an epoch reads of each source."""
    sizes = np.diff(train.starts).tolist()
    found: list[dict[str, Any]] = []
    for (name, weight), size, count in zip(train.weights.items(), sizes, train.counts.tolist(), strict=True):
        found.append({"source": name, "weight": weight, "rows": size, "read": count, "share": count / len(train)})
        screen.info(f"{name}: {size:,} rows, of which an epoch reads {count:,}, {count / len(train):.0%} of all")
    return found


def _say_cut(train: ChatExamples, encoder: ChatEncoder, screen: Console) -> None:
    if train.cut:
        screen.warning(
            f"{train.cut:,} conversations are longer than {encoder.max_length} tokens and lose their end; "
            f"model.max_length: {encoder.limit} is the most"
        )


def _tokenizer(prepared: Prepared, encoder: TokenEncoder, screen: Console) -> dict[str, Any]:
    """How the tokenizer does on texts that it was not trained on, said and as a dict."""
    split = "valid" if prepared.rows("valid") else "train"
    table = next(prepared.pieces(split, encoder.columns, rows=MEASURED))
    texts = [text for name in encoder.columns for text in encoder.texts(table, name)]
    facts = measure_tokenizer(encoder.tokenizer, texts, len(encoder.tokenizer))
    screen.info(
        f"tokenizer: {facts.vocabulary:,} pieces; on {facts.texts:,} {_SPLITS[split]} texts "
        f"{facts.bytes_per_token:.2f} bytes a token, {facts.unknown_rate:.2%} unknown"
    )
    return {**asdict(facts), "measured_on": split}


def warn_of_known_texts(stages: list[StageRecipe], prepared: list[Prepared], screen: Console) -> None:
    """Say how many test texts of a stage an earlier stage learned from without their labels: the result on them may look
    better than it is on texts that are wholly new."""
    for index, stage in enumerate(stages):
        if not _reads_texts(stage) or not prepared[index].rows("test"):
            continue
        test = _texts(stage, prepared[index], "test")
        for before, data in zip(stages[:index], prepared[:index]):
            if not _reads_texts(before) or get_task(before.recipe.task).target_kind is not None:
                continue
            read = pa.concat_arrays([column.combine_chunks() for column in _texts(before, data, "train")])
            known = np.any([np.asarray(pc.is_in(column, value_set=read)) for column in test], axis=0)
            if known.any():
                screen.warning(
                    f"{int(known.sum()):,} of the {len(known):,} test texts of {stage.name} stand in what {before.name} "
                    "learns from, without their labels; so that no test text has been read, keep equal texts together in "
                    "both stages: data: {input: TEXT, split: {by: group, column: TEXT}}"
                )


def _reads_texts(stage: StageRecipe) -> bool:
    return get_task(stage.recipe.task).load_inputs is load_tokens


def _texts(stage: StageRecipe, prepared: Prepared, split: str) -> list[pa.ChunkedArray]:
    """The columns with a split's texts."""
    columns = text_columns(prepared, stage.recipe)
    table = prepared.table(split, columns)
    return [table[name].cast(pa.string()) for name in columns]


_SPLITS = {"valid": "validation", "train": "training"}
