"""Find faulty recordings: too loud, silent, of another sample rate, with a wrong transcript, or speakers in several splits."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from tunewright.data.audio.decode import CLIPPED, RATE
from tunewright.data.checks.finding import Finding, Severity
from tunewright.data.checks.material import Material
from tunewright.data.recommendation.column_roles import speaker_column
from tunewright.data.sources.speech import AUDIO

TEXT = "text"
# Below this level, −60 dB of the loudest that the format has, nobody speaks.
SILENT = 32767 * 10 ** (-60 / 20)
# Nobody says more letters in a second, nor, in a recording that is spoken through, fewer.
MOST_LETTERS, LEAST_LETTERS = 30.0, 2.0
# A recording whose energy ends below this share of the spectrum was made at half the rate or less.
NARROW = 0.62
# Recordings that are looked at.
MOST = 20_000


@dataclass(frozen=True)
class _Problem:
    """Something wrong with some of the recordings that were looked at."""

    where: np.ndarray
    """[N] bool."""
    code: str
    what: str
    fix: str
    severity: Severity = "problem"


def recordings(material: Material) -> list[Finding]:
    """Recordings that were too loud for their format, silent ones, those whose high half of the spectrum is empty among others
    that have one, and those with more or fewer letters a second than anybody says."""
    if not has_recordings(material):
        return []
    places = material.sample(MOST)
    taken = material.table.take(pa.array(places))
    facts = np.stack([_measured(cell.as_py()) for cell in taken[AUDIO]])
    limit, loudness, seconds, reach = facts.T
    silent = loudness < SILENT
    found = _sound_problems(limit, silent, reach)
    if TEXT in taken.column_names:
        found += _text_problems(taken[TEXT].to_pylist(), seconds, silent)
    return [
        Finding(
            code=problem.code,
            severity=problem.severity,
            title=f"{problem.where.sum():,} recordings: {problem.what}",
            count=int(problem.where.sum()),
            examples=[material.name_row(int(place)) for place in places[problem.where][:3]],
            fix=problem.fix,
        )
        for problem in found
        if problem.where.any()
    ]


def _sound_problems(limit: np.ndarray, silent: np.ndarray, reach: np.ndarray) -> list[_Problem]:
    narrow = ~silent & (reach < NARROW)
    if narrow.sum() == (~silent).sum():
        narrow[:] = False  # all of them are so
    return [
        _Problem(
            limit > CLIPPED,
            "clipped-recordings",
            f"more than {CLIPPED:.0%} of the samples are at the format's limit: the recording was too loud",
            "record these again at a lower level, or remove them",
        ),
        _Problem(
            silent, "silent-recordings", "they are silent (below −60 dB)", "remove these rows, or restore their files"
        ),
        _Problem(
            narrow,
            "narrow-recordings",
            f"nothing is above {RATE / 2 * NARROW:,.0f} Hz: recorded at about half of {RATE:,} samples a second, unlike the others",
            "keep both kinds in training and test alike, or record again",
        ),
    ]


def _text_problems(texts: list[str | None], seconds: np.ndarray, silent: np.ndarray) -> list[_Problem]:
    letters = np.array([len("".join((text or "").split())) for text in texts])
    rates = letters / np.maximum(seconds, 1e-3)
    return [
        _Problem(
            letters == 0,
            "recordings-without-words",
            "the table has no words for the recording",
            "write them, or remove the rows",
        ),
        _Problem(
            rates > MOST_LETTERS,
            "too-many-letters",
            f"more than {MOST_LETTERS:g} letters a second: the words are another recording's, or its rate is wrong",
            "check these rows' words and files",
        ),
        _Problem(
            (rates < LEAST_LETTERS) & (letters > 0) & ~silent,
            "too-few-letters",
            f"fewer than {LEAST_LETTERS:g} letters a second: words are missing, or much of it is silence",
            "check these rows' words, or cut the silence away",
            "warning",
        ),
    ]


def has_recordings(material: Material) -> bool:
    """Return whether the data has sound in it."""
    return any(column.kind == "audio" for column in material.manifest.columns)


def _measured(cell: bytes) -> list[float]:
    """Return the share of samples at the limit, the loudness, the seconds, and up to which share of the spectrum there is
    energy."""
    samples = np.frombuffer(cell, np.int16).astype(np.float32)
    energy = np.abs(np.fft.rfft(samples)) ** 2
    # What is 40 dB below the mean of all frequencies is what a filter leaves.
    high = np.flatnonzero(energy > energy.mean() * 1e-4)
    reach = (np.quantile(high, 0.999) + 1) / len(energy) if len(high) else 0.0
    loudness = np.sqrt(np.mean(np.square(samples)))
    return [float(np.mean(np.abs(samples) >= 32767)), float(loudness), len(samples) / RATE, float(reach)]


def shared_speakers(material: Material) -> list[Finding]:
    """Voices that are in the training rows and in those that it is measured on."""
    speaker = speaker_column(material.table.column_names)
    if not has_recordings(material) or speaker is None:
        return []
    voices = np.array([str(value) for value in material.table[speaker].to_pylist()])
    shared = sorted(set(voices[material.splits == "train"]) & set(voices[material.splits != "train"]))
    if not shared:
        return []
    return [
        Finding(
            code="shared-speakers",
            severity="problem",
            title=f"{len(shared):,} voices are in the training rows and in those that it is measured on: a new voice will be "
            "understood less well than the result says",
            count=len(shared),
            examples=shared[:3],
            fix=f"data.split: {{by: group, column: {speaker}}}",
        )
    ]
