"""Whisper's picture of a sound (Radford et al. 2023, section 2.2): 80 bands, windows of 25 ms every 10 ms, log₁₀ of their energy, no
lower than 8 below the loudest, and scaled to about −1 to 1."""

from __future__ import annotations

from functools import lru_cache

import torch
from torch import Tensor

from tunewright.data.audio.decode import RATE

BANDS, WINDOW, HOP = 80, 400, 160
QUIETEST = 1e-10
DEPTH = 8.0


def whisper_mel(samples: Tensor) -> Tensor:
    """Turn samples [N] float, −1 to 1, into [T, BANDS] float32, T about N / HOP; the recording is padded with silence."""
    moments = 1 + (len(samples) + WINDOW // 2 - 1) // HOP  # the last window that reaches back into the recording
    behind = moments * HOP - len(samples) + WINDOW
    whole = torch.nn.functional.pad(
        samples.float()[None], (WINDOW // 2, 0), "reflect" if len(samples) > WINDOW else "constant"
    )
    whole = torch.nn.functional.pad(whole, (0, behind))[0]
    frames = torch.stft(whole, WINDOW, HOP, WINDOW, torch.hann_window(WINDOW), center=False, return_complex=True)
    energy = (frames.real.square() + frames.imag.square())[:, :moments]
    found = (whisper_bands() @ energy).clamp(min=QUIETEST).log10().T
    return (torch.maximum(found, found.max() - DEPTH) + 4) / 4


@lru_cache(maxsize=1)
def whisper_bands() -> Tensor:
    """Return [BANDS, WINDOW / 2 + 1]: triangles of equal area, evenly spaced on Slaney's mel scale."""
    from transformers.audio_utils import mel_filter_bank

    bands = mel_filter_bank(1 + WINDOW // 2, BANDS, 0.0, RATE / 2, RATE, norm="slaney", mel_scale="slaney")
    return torch.from_numpy(bands.T.copy()).float()
