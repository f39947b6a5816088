"""Turn recordings into features, by name: the energy in bands, cepstral coefficients, or the samples themselves."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from tunewright.data.audio.log_mel import BANDS, COEFFICIENTS, log_mel, mfcc
from tunewright.data.audio.whisper_mel import BANDS as WHISPER_BANDS
from tunewright.data.audio.whisper_mel import whisper_mel


def evenly_loud(samples: Tensor) -> Tensor:
    """Return [N] with a mean of 0 and a variance of 1, as the library's networks on samples want it."""
    samples = samples.float()
    return (samples - samples.mean()) / torch.sqrt(samples.var(correction=0) + 1e-7)


HEARINGS: dict[str, Callable[[Tensor], Tensor]] = {
    "log_mel": log_mel,
    "mfcc": mfcc,
    "samples": evenly_loud,
    "whisper": whisper_mel,
}
# Numbers for each moment.
WIDTHS = {"log_mel": BANDS, "mfcc": COEFFICIENTS, "samples": 1, "whisper": WHISPER_BANDS}
# Moments of the input in a second.
A_SECOND = {"log_mel": 100, "mfcc": 100, "samples": 16_000, "whisper": 100}
