"""Sound as numbers: any file that libsndfile reads (WAV, FLAC, OGG, MP3), one channel, 16,000 samples a second."""

from __future__ import annotations

from math import gcd
from pathlib import Path
from typing import BinaryIO

import numpy as np

RATE = 16_000
# Above this share of samples at the limit a recording was too loud for its format.
CLIPPED = 0.01


def read_audio(path: Path | BinaryIO) -> np.ndarray:
    """[N] int16 at RATE: the mean of the channels, resampled by a polyphase filter.

    Raises:
        ValueError: it is no sound, or there is none in it; the message says which.
    """
    import soundfile

    try:
        samples, rate = soundfile.read(path, dtype="float32", always_2d=True)
    except (soundfile.SoundFileError, OSError, TypeError) as error:
        raise ValueError(f"it cannot be read as sound: {str(error).splitlines()[0]}") from None
    mono = samples.mean(axis=1)
    if not len(mono):
        raise ValueError("it holds no sample")
    if not np.isfinite(mono).all():
        raise ValueError("a sample is not a finite number")
    if rate != RATE:
        from scipy.signal import resample_poly

        shared = gcd(rate, RATE)
        mono = resample_poly(mono, RATE // shared, rate // shared)
    return np.rint(np.clip(mono, -1, 1) * 32767).astype(np.int16)
