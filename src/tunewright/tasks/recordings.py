"""Recordings as a recogniser hears them, and their words as letters."""

from __future__ import annotations

import unicodedata
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor

from tunewright.data.audio import RATE
from tunewright.data.batching import Batch
from tunewright.data.log_mel import BANDS, log_mel
from tunewright.data.prepare import Prepared
from tunewright.data.sources.speech import AUDIO
from tunewright.errors import DataError
from tunewright.models.pretrained import Backbone
from tunewright.random import uniform
from tunewright.recipe.schema import Recipe
from tunewright.training.ctc import NO_LETTER

TEXT = "text"
# SpecAugment (Park et al. 2019): in each recording so many stripes of bands and of time are hidden, each at most so wide.
BAND_STRIPES, BANDS_HIDDEN = 2, 12
TIME_STRIPES, TIME_HIDDEN = 2, 0.06


@dataclass(frozen=True, kw_only=True)
class SpeechExamples:
    """Recordings of different lengths, padded in a batch to its longest.

    A batch's inputs are {"features": [B, T, BANDS], "lengths": [B]}, its target [B, L] the letters' numbers, `NO_LETTER` behind
    their end; None without words. In a training epoch stripes of the features are hidden, others each time.
    """

    features: list[Tensor]
    letters: list[Tensor] | None
    rows: Tensor
    impossible: int = 0
    """How many recordings are too short for their words, and were left out."""
    device: torch.device | None = None

    @property
    def target(self) -> None:
        return None

    @property
    def lengths(self) -> Tensor:
        return self._lengths

    @cached_property
    def _lengths(self) -> Tensor:
        return torch.tensor([len(entry) for entry in self.features])

    @property
    def augmented(self) -> bool:
        return True

    @property
    def seconds(self) -> float:
        return float(self.lengths.sum()) / 100

    def __len__(self) -> int:
        return len(self.features)

    def to(self, device: torch.device) -> SpeechExamples:
        return replace(self, device=device)

    def batch(self, ids: Tensor, epoch: int | None = None) -> Batch:
        chosen = [self.features[index] for index in ids.tolist()]
        if epoch is not None:
            chosen = [_striped(entry, index, epoch) for entry, index in zip(chosen, ids.tolist(), strict=True)]
        features = torch.nn.utils.rnn.pad_sequence(chosen, batch_first=True)
        target = None
        if self.letters is not None:
            letters = [self.letters[index] for index in ids.tolist()]
            target = torch.nn.utils.rnn.pad_sequence(letters, batch_first=True, padding_value=NO_LETTER).to(self.device)
        inputs = {"features": features.to(self.device), "lengths": self.lengths[ids].to(self.device)}
        return Batch(inputs, target, ids)


def _striped(features: Tensor, index: int, epoch: int) -> Tensor:
    """A copy with stripes of 0, which is each band's mean."""
    found = features.clone()
    drawn = uniform(0, "stripes", epoch, np.array([index]), 2 * (BAND_STRIPES + TIME_STRIPES))[0]
    for number in range(BAND_STRIPES + TIME_STRIPES):
        axis = int(number < BAND_STRIPES)
        most = BANDS_HIDDEN if axis else TIME_HIDDEN * len(found)
        width = int(drawn[2 * number] * (most + 1))
        start = int(drawn[2 * number + 1] * (found.shape[axis] - width + 1))
        found.narrow(axis, start, width).zero_()
    return found


@dataclass(frozen=True, kw_only=True)
class SpeechEncoder:
    """The letters that words are written with; number 0 is the blank, letter k has number k + 1."""

    letters: list[str]
    plain_name: str = "the commonest sentence"
    plain_rows: int = 50_000

    @property
    def input_shape(self) -> tuple[int, int]:
        return (1, BANDS)

    @property
    def outputs(self) -> int:
        """The letters and the blank."""
        return len(self.letters) + 1

    def numbers(self, text: str) -> list[int]:
        """The letters' numbers; a letter that is not known is left out."""
        known = {letter: number for number, letter in enumerate(self.letters, start=1)}
        return [known[letter] for letter in spoken(text) if letter in known]

    def read(self, numbers: Sequence[int]) -> str:
        """What letters say."""
        return "".join(self.letters[number - 1] for number in numbers)

    def features(self, table: pa.Table) -> list[Tensor]:
        """The features of each recording. Raises DataError when the table holds none."""
        if AUDIO not in table.column_names or not pa.types.is_binary(table[AUDIO].type):
            raise DataError(
                "the data holds no recordings",
                found=", ".join(table.column_names),
                expected="a column `audio`",
                fix="data.format: speech",
            )
        return [log_mel(_samples(cell.as_py())) for cell in table[AUDIO]]

    def examples(self, table: pa.Table, target: Tensor | None) -> SpeechExamples:
        """Recordings with their letters; those that are too short for them are left out and counted."""
        features = self.features(table)
        rows = torch.tensor(np.asarray(table["_row"]))
        if TEXT not in table.column_names:
            return SpeechExamples(features=features, letters=None, rows=rows)
        letters = [torch.tensor(self.numbers(text or ""), dtype=torch.int64) for text in table[TEXT].to_pylist()]
        kept = [index for index, found in enumerate(letters) if len(found) and _fits(found, len(features[index]))]
        if not kept:
            raise DataError(
                "no recording is long enough for its words",
                found=f"{table.num_rows:,} recordings",
                expected="recordings whose words are in them",
                fix="check the table: does each row name the words of its own file?",
            )
        return SpeechExamples(
            features=[features[index] for index in kept],
            letters=[letters[index] for index in kept],
            rows=rows[kept],
            impossible=len(letters) - len(kept),
        )

    def plain(self, train: pa.Table, test: pa.Table) -> tuple[Any, Any]:
        raise NotImplementedError  # its baselines are of its examination

    def show(self, table: pa.Table, index: int) -> dict[str, Any]:
        return {"input": {TEXT: table[TEXT][index].as_py()}}

    def to_json(self) -> dict[str, Any]:
        return {"letters": self.letters}

    def write(self, folder: Path) -> None:
        """Nothing: the JSON holds all."""


def spoken(text: str) -> str:
    """A text as it is compared and learned: composed, in lower case, blanks as one."""
    return " ".join(unicodedata.normalize("NFC", text).lower().split())


def _samples(cell: bytes) -> Tensor:
    return torch.from_numpy(np.frombuffer(cell, np.int16).astype(np.float32) / 32768)


def _fits(letters: Tensor, moments: int) -> bool:
    """Between two equal letters a blank must stand."""
    return (moments + 1) // 2 >= len(letters) + int((letters[1:] == letters[:-1]).sum())


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
            "a recogniser learns from recordings and their words",
            file=prepared.manifest.source,
            found=", ".join(names),
            expected="the columns audio and text",
            fix="rename the columns",
        )
    counts: Counter[str] = Counter()
    for piece in prepared.pieces("train", [TEXT]):
        for text in piece[TEXT].cast(pa.string()).to_pylist():
            counts.update(spoken(text or ""))
    if not counts:
        raise DataError("no recording has words", file=prepared.manifest.source, fix="fill the column `text`")
    if known is not None and set(counts) <= set(known.letters):
        return known
    return SpeechEncoder(letters=sorted(counts))


def load_recordings(value: dict[str, Any], folder: Path) -> SpeechEncoder:
    """The encoder from its JSON."""
    return SpeechEncoder(**value)


def seconds_of(table: pa.Table) -> float:
    """How long the recordings of a table are, together."""
    return sum(len(cell.as_py()) for cell in table[AUDIO]) / 2 / RATE
