"""Sound as numbers: a WAV, FLAC, OGG or MP3 file as one channel of 16,000 samples a second.

The one place where a recording is opened. libsndfile reads more formats, chosen by a file's content; only those that are
promised are decoded, and no more of a file than its header says and the limits allow.
"""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager, nullcontext
from math import gcd
from pathlib import Path
from threading import Lock
from typing import Any, BinaryIO

import numpy as np

from tunewright.limits import SOUND_RATE, SOUND_SAMPLES, SOUND_SECONDS, Limit

RATE = 16_000
# As libsndfile calls them; the first three are kinds of WAV.
FORMATS = ("WAV", "WAVEX", "RF64", "FLAC", "OGG", "MP3")
# Above this share of samples at the limit a recording was too loud for its format.
CLIPPED = 0.01
# Samples a second below which nothing can be heard that anybody says.
LEAST_RATE = 1_000
# Recordings of more samples are decoded one at a time, so that threads do not each need the memory for one.
LARGE = 20_000_000
_one_large = Lock()
# What libsndfile says where a header does not say how long a recording is.
UNKNOWN = 2**63 - 1


def read_audio(path: Path | BinaryIO) -> np.ndarray:
    """Return [N] int16 at RATE: the mean of the channels, resampled by a polyphase filter.

    Raises:
        ValueError: it is not a recording, is empty, or is too long; the message says which.
    """
    with _opened(path) as sound, _one_large if sound.frames * sound.channels > LARGE else nullcontext():
        return _at_rate(_mono(sound), sound.samplerate)


def _at_rate(mono: np.ndarray, rate: int) -> np.ndarray:
    if not len(mono):
        raise ValueError("it holds no sample")
    if not np.isfinite(mono).all():
        raise ValueError("a sample is not a finite number")
    if rate != RATE:
        from scipy.signal import resample_poly

        shared = gcd(rate, RATE)
        mono = resample_poly(mono, RATE // shared, rate // shared)
    np.clip(mono, -1, 1, out=mono)
    mono *= 32767
    return np.rint(mono, out=mono).astype(np.int16)


def sound_size(path: Path | BinaryIO) -> tuple[float, int]:
    """Return a recording's length in seconds, and its samples over all channels, by its header.

    Raises:
        ValueError: as for `read_audio`.
    """
    with _opened(path) as sound:
        return sound.frames / sound.samplerate, sound.frames * sound.channels


@contextmanager
def _opened(path: Path | BinaryIO) -> Generator[Any]:
    """A recording of a promised format and within the limits, as its header says."""
    import soundfile

    try:
        with soundfile.SoundFile(path) as sound:
            _require_bounded(sound)
            yield sound
    except (soundfile.SoundFileError, OSError, TypeError, MemoryError) as error:
        said = f"{error}".splitlines() or [type(error).__name__]
        raise ValueError(f"it cannot be read as sound: {said[0]}") from None


def _require_bounded(sound: Any) -> None:
    if sound.format not in FORMATS:
        raise ValueError(f"it is {sound.format_info}, and only WAV, FLAC, OGG and MP3 are read")
    if sound.samplerate < LEAST_RATE:
        raise ValueError(f"{sound.samplerate:,} samples a second are fewer than {LEAST_RATE:,}")
    if sound.frames == UNKNOWN:
        raise ValueError("its header does not say how long it is: convert the file again, not through a pipe")
    _require(SOUND_RATE, sound.samplerate)
    _require(SOUND_SECONDS, sound.frames / sound.samplerate)
    _require(SOUND_SAMPLES, sound.frames * sound.channels)


def _require(limit: Limit, found: float) -> None:
    if found > limit.value:
        raise ValueError(
            f"{found:,.0f} {limit.unit} are more than {limit.value:,} ({limit.variable} changes the limit)"
        )


def _mono(sound: Any) -> np.ndarray:
    """Return [N] float32: no more than the header says, whatever follows.

    In one read: between reads the library seeks, and an MP3 is decoded to other numbers from there.
    """
    sound.seek(0)
    samples = sound.read(sound.frames, dtype="float32", always_2d=True)
    return samples.mean(axis=1) if sound.channels > 1 else samples[:, 0]
