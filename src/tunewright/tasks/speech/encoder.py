"""Encode recordings as features, and their words as characters."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import pyarrow as pa
import torch
from pydantic import Field
from torch import Tensor

from tunewright.data.audio.augmentation import SoundChanges
from tunewright.data.audio.decode import RATE
from tunewright.data.audio.features import A_SECOND, HEARINGS, WIDTHS
from tunewright.data.audio.log_mel import HOP
from tunewright.data.audio.transcript_text import spoken, spoken_words
from tunewright.data.batches.batch import BaseExamples, Batch, Truth
from tunewright.data.prepared import Prepared
from tunewright.data.sources.speech import AUDIO
from tunewright.data.text.ngram_model import NGrams, count_ngrams, read_arpa, write_arpa
from tunewright.errors import DataError
from tunewright.evaluation.decoding import Beam
from tunewright.recipe.named import check_options, choose, parse_named
from tunewright.recipe.schema import Recipe
from tunewright.tasks.base.encoders import InputEncoder
from tunewright.training.objectives.ctc import NO_LETTER
from tunewright.training.privacy.lineage import Statistic

TEXT = "text"
WORDS_FILE = "words.arpa"
Bonus = Annotated[float, Field(ge=-100, le=100)]


@dataclass(frozen=True, kw_only=True)
class SpeechExamples(BaseExamples):
    """Recordings of different lengths, padded in a batch to its longest.

    A batch's inputs are {"features": [B, T, M], or [B, T] of samples, "lengths": [B]}, its target [B, L] the letters' numbers,
    `NO_LETTER` behind their end; None without words.
    """

    sounds: list[Tensor]
    """[N] int16 each."""
    reads: str
    """The features that the network reads, see `data/audio/features.py`."""
    letters: list[Tensor] | None
    rows: Tensor
    impossible: int = 0
    """How many recordings are too short for their words, and were skipped."""
    augmentation: SoundChanges | None = None
    device: torch.device | None = None

    @property
    def target(self) -> None:
        return None

    @property
    def lengths(self) -> Tensor:
        """[N]: in hundredths of a second."""
        return self._lengths

    @cached_property
    def _lengths(self) -> Tensor:
        return torch.tensor([1 + len(sound) // HOP for sound in self.sounds])

    @property
    def timed(self) -> bool:
        return True

    def with_augmentation(self, augmentation: SoundChanges) -> SpeechExamples:
        return replace(self, augmentation=augmentation)

    @property
    def augmented(self) -> bool:
        return self.augmentation is not None

    @property
    def seconds(self) -> float:
        return sum(map(len, self.sounds)) / RATE

    def __len__(self) -> int:
        return len(self.sounds)

    def to(self, device: torch.device) -> SpeechExamples:
        return replace(self, device=device)

    @cached_property
    def _features(self) -> list[Tensor]:
        """Of all recordings, where they are always the same; not of samples, which are twice as large as the sounds."""
        return [self._heard(sound) for sound in self.sounds]

    def _heard(self, sound: Tensor) -> Tensor:
        return HEARINGS[self.reads](sound.float() / 32768)

    def _one(self, index: int, epoch: int | None) -> Tensor:
        changes = self.augmentation if epoch is not None else None
        if changes is not None and changes.of_samples:
            features = HEARINGS[self.reads](changes.samples(self.sounds[index].float() / 32768, index, epoch or 0))
        elif self.reads == "samples":
            features = self._heard(self.sounds[index])
        else:
            features = self._features[index]
        return features if changes is None else changes.features(features, index, epoch or 0)

    def batch(self, ids: Tensor, epoch: int | None = None) -> Batch:
        chosen = [self._one(index, epoch) for index in ids.tolist()]
        features = torch.nn.utils.rnn.pad_sequence(chosen, batch_first=True)
        lengths = torch.tensor([len(entry) for entry in chosen])
        target = None
        if self.letters is not None:
            letters = [self.letters[index] for index in ids.tolist()]
            target = torch.nn.utils.rnn.pad_sequence(letters, batch_first=True, padding_value=NO_LETTER).to(self.device)
        return Batch({"features": features.to(self.device), "lengths": lengths.to(self.device)}, target, ids)


@dataclass(frozen=True, kw_only=True)
class SpeechEncoder(InputEncoder):
    """Encode recordings as features and transcripts as characters, and decode what the network gives.

    Number 0 is the blank, letter k has number k + 1.
    """

    letters: list[str]
    reads: str = "log_mel"
    moment: int = 2
    """How many frames of the input become one of the output."""
    beam: Beam | None = None
    """None: the likeliest letter of each moment."""

    @property
    def objective(self) -> str:
        """What is minimised where the recipe does not say."""
        return "ctc"

    @property
    def searches(self) -> bool:
        return True

    @property
    def input_shape(self) -> tuple[int, int]:
        return (1, WIDTHS[self.reads])

    @property
    def outputs(self) -> int:
        """The letters and the blank."""
        return len(self.letters) + 1

    def numbers(self, text: str) -> list[int]:
        """Return the indices of a text's characters; unknown characters are skipped."""
        known = {letter: number for number, letter in enumerate(self.letters, start=1)}
        return [known[letter] for letter in spoken(text) if letter in known]

    def read(self, numbers: Sequence[int]) -> str:
        """Return what letters say."""
        return "".join(self.letters[number - 1] for number in numbers)

    def sounds(self, table: pa.Table) -> list[Tensor]:
        """Return [N] int16 of each recording. Raises DataError when the table holds none."""
        if AUDIO not in table.column_names or not pa.types.is_binary(table[AUDIO].type):
            raise DataError(
                "the data holds no recordings",
                found=", ".join(table.column_names),
                expected="a column `audio`",
                fix="data.format: speech",
            )
        return [torch.from_numpy(np.frombuffer(cell.as_py(), np.int16).copy()) for cell in table[AUDIO]]

    def heard(self, table: pa.Table) -> SpeechExamples:
        """Recordings without their words."""
        rows = torch.tensor(np.asarray(table["_row"]))
        return SpeechExamples(sounds=self.sounds(table), reads=self.reads, letters=None, rows=rows)

    def examples(self, table: pa.Table, target: Truth) -> SpeechExamples:
        """Recordings with their letters; those that are too short for them are skipped and counted."""
        found = self.heard(table)
        if TEXT not in table.column_names:
            return found
        letters = [torch.tensor(self.numbers(text or ""), dtype=torch.int64) for text in table[TEXT].to_pylist()]
        kept = [
            index
            for index, entry in enumerate(letters)
            if len(entry) and self.fits(entry, len(found.sounds[index]) / RATE)
        ]
        if not kept:
            raise DataError(
                "no recording is long enough for its transcript",
                found=f"{table.num_rows:,} recordings",
                expected="recordings whose words are in them",
                fix="check the table: does each row name the words of its own file?",
            )
        return replace(
            found,
            sounds=[found.sounds[index] for index in kept],
            letters=[letters[index] for index in kept],
            rows=found.rows[kept],
            impossible=len(letters) - len(kept),
        )

    def fits(self, letters: Tensor, seconds: float) -> bool:
        """Return whether there is a moment for each letter, and for a blank between two equal ones."""
        needed = len(letters) + int((letters[1:] == letters[:-1]).sum())
        return seconds * A_SECOND[self.reads] / self.moment >= needed

    def show(self, table: pa.Table, index: int) -> dict[str, Any]:
        return {"input": {TEXT: table[TEXT][index].as_py()}}

    def to_json(self) -> dict[str, Any]:
        found: dict[str, Any] = {"letters": self.letters, "reads": self.reads, "moment": self.moment}
        if self.beam is not None:
            facts = {name: value for name, value in vars(self.beam).items() if name != "words"}
            found["beam"] = {**facts, "hot_words": sorted(self.beam.hot_words)}
        return found

    def statistics(self, prepared: Prepared, owner: str | None) -> list[Statistic]:
        table = prepared.table("train", list(dict.fromkeys([TEXT, *([owner] if owner is not None else [])])))
        whose = table[owner].to_pylist() if owner is not None else range(table.num_rows)
        held: dict[str, set[object]] = {letter: set() for letter in self.letters}
        for text, who in zip(table[TEXT].to_pylist(), whose, strict=True):
            for letter in held.keys() & set(spoken(text or "")):
                held[letter].add(who)
        alone = sum(len(owners) == 1 for owners in held.values())
        found = [Statistic(column=TEXT, kind="letters", count=len(self.letters), single=alone)]
        if self.beam is not None and self.beam.words is not None:
            runs = len(self.beam.words.log_probabilities)
            found.append(Statistic(column=TEXT, kind="word counts", count=runs))
        return found

    def write(self, folder: Path) -> None:
        """The language model, where there is one."""
        if self.beam is not None and self.beam.words is not None:
            write_arpa(self.beam.words, folder / WORDS_FILE)


def beam(
    *,
    width: Annotated[int, Field(gt=0, le=1024)] = 16,
    words: str | None = "train",
    order: Annotated[int, Field(gt=0, le=6)] = 3,
    weight: Annotated[float, Field(ge=0, le=10)] = 0.5,
    bonus: Bonus = 0.5,
    hot_words: list[str] | None = None,
    hot_bonus: Bonus = 3.0,
) -> dict[str, Any]:
    """Return the options: `words`, the language model: train (counted from the training texts), an ARPA file, or none."""
    return dict(locals())


def greedy() -> dict[str, Any]:
    """Return the likeliest letter of each moment."""
    return {}


DECODINGS = {"greedy": greedy, "beam": beam}


def fit_decoding(recipe: Recipe, texts: Iterator[str], base: Path) -> Beam | None:
    """Return what `model.decoding` asks for. Raises RecipeError or DataError: it cannot be done."""
    name, given = parse_named(recipe.model.decoding or "greedy", "model.decoding")
    make = choose(DECODINGS, name, "model.decoding")
    options = make(**check_options(make, given, f"model.decoding.{name}"))
    if not options:
        return None
    source, order, hot = options.pop("words"), options.pop("order"), options.pop("hot_words") or []
    counted: NGrams | None = None
    if source == "train":
        counted = count_ngrams((spoken_words(spoken(text)) for text in texts), order)
    elif source is not None:
        counted = read_arpa(base / source)
    return Beam(words=counted, hot_words=frozenset(spoken_words(spoken(" ".join(hot)))), **options)
