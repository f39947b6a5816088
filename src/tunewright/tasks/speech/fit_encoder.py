"""How a recogniser comes to know what to hear and what to write: learned from the training recordings, or read with the model."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa

from tunewright.data.audio.transcript_text import spoken
from tunewright.data.prepared import Prepared
from tunewright.data.sources.speech import AUDIO
from tunewright.data.text.ngram_model import read_arpa
from tunewright.errors import DataError, RecipeError
from tunewright.evaluation.decoding import Beam
from tunewright.models.backbone import Backbone
from tunewright.models.speech.registry import describe_speech
from tunewright.models.speech.wav2vec2 import described_folder
from tunewright.recipe.schema import Recipe
from tunewright.tasks.speech.encoder import TEXT, WORDS_FILE, SpeechEncoder, fit_decoding
from tunewright.tasks.speech.seq2seq_encoder import Seq2SeqSpeechEncoder, open_tokenizer


def fit_recordings(
    prepared: Prepared, recipe: Recipe, backbone: Backbone | None, known: SpeechEncoder | None
) -> SpeechEncoder:
    """Learn the letters from the training split, unless a network was trained on known ones that suffice.

    Raises:
        DataError: there are no words to learn from.
    """
    names = [column.name for column in prepared.manifest.columns]
    if AUDIO not in names or TEXT not in names:
        raise DataError(
            "speech recognition needs recordings and their transcripts",
            file=prepared.manifest.source,
            found=", ".join(names),
            expected="the columns audio and text",
            fix="rename the columns",
        )

    def texts() -> Iterator[str]:
        for piece in prepared.pieces("train", [TEXT]):
            yield from (text or "" for text in piece[TEXT].cast(pa.string()).to_pylist())

    counts: Counter[str] = Counter()
    for text in texts():
        counts.update(spoken(text))
    if not counts:
        raise DataError("no recording has a transcript", file=prepared.manifest.source, fix="fill the column `text`")
    found = (
        known.beam
        if known is not None and recipe.model.decoding is None
        else fit_decoding(recipe, texts(), prepared.base)
    )
    if known is not None:
        letters = known.letters if set(counts) <= set(known.letters) else sorted(counts)
        return replace(known, letters=letters, beam=found)
    named = recipe.model.backbone or "deepspeech"
    facts = describe_speech(named) if backbone is None else described_folder(backbone.config)
    common: dict[str, Any] = {
        "letters": sorted(counts),
        "reads": facts["reads"],
        "moment": facts["moment"],
        "beam": found,
    }
    if facts["name"] != "whisper":
        return SpeechEncoder(**common)
    if found is not None:
        raise RecipeError(
            "Whisper decodes greedily; there is no search to configure",
            place="model.decoding",
            found=recipe.model.decoding,
            expected="greedy",
            fix="remove model.decoding",
        )
    longest = facts["config"].get("max_source_positions", 1500) / 50
    tokenizer = None if backbone is None else open_tokenizer(backbone.folder)
    return Seq2SeqSpeechEncoder(**common, longest=longest, tokenizer=tokenizer)


def load_recordings(value: dict[str, Any], folder: Path) -> SpeechEncoder:
    """Load the encoder from its JSON and the language model's file."""
    facts = dict(value)
    if (dictates := facts.pop("dictates", None)) is not None:
        return Seq2SeqSpeechEncoder(**facts, tokenizer=open_tokenizer(folder) if dictates == "pieces" else None)
    if (given := facts.pop("beam", None)) is None:
        return SpeechEncoder(**facts)
    searched = dict(given)
    words = read_arpa(folder / WORDS_FILE) if (folder / WORDS_FILE).exists() else None
    hot = frozenset(searched.pop("hot_words"))
    return SpeechEncoder(**facts, beam=Beam(**searched, words=words, hot_words=hot))
