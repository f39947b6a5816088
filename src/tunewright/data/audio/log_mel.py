"""Sound as a picture of its frequencies over time: the logarithm of the energy in bands that are evenly spaced to the ear.

Windows of 25 ms, one every 10 ms, Hann; 512 frequencies; 80 triangular bands from 20 Hz on, evenly spaced in mel,
m = 2595 log₁₀(1 + f / 700) (O'Shaughnessy 1987; HTK's formula). And that picture's cosine transform, whose first coefficients hold
the shape of the spectrum and leave out the pitch (Davis and Mermelstein 1980).
"""

from __future__ import annotations

from functools import lru_cache

import torch
from torch import Tensor

from tunewright.data.audio.decode import RATE

BANDS, COEFFICIENTS = 80, 40
WINDOW, HOP, POINTS = 400, 160, 512
LOWEST = 20.0
# Below this energy there is silence.
FLOOR = 1e-10


def log_mel(samples: Tensor) -> Tensor:
    """Turn samples [N] float, −1 to 1, into [T, BANDS] float32 with T = 1 + ⌊N / HOP⌋; each band with a mean of 0 and a deviation of 1."""
    return _even(_energies(samples))


def mfcc(samples: Tensor) -> Tensor:
    """Turn samples [N] float, −1 to 1, into [T, COEFFICIENTS] float32, each with a mean of 0 and a deviation of 1: the orthonormal cosine
    transform (type II) over the bands of the logarithm of their energy."""
    return _even(_energies(samples) @ cosines().T)


def _even(found: Tensor) -> Tensor:
    return (found - found.mean(0)) / (found.std(0, correction=0) + 1e-5)


def _energies(samples: Tensor) -> Tensor:
    padded = torch.nn.functional.pad(samples.float(), (POINTS // 2, POINTS // 2))
    frames = torch.stft(
        padded, POINTS, HOP, WINDOW, torch.hann_window(WINDOW), center=False, return_complex=True, onesided=True
    )
    energy = frames.real.square() + frames.imag.square()
    return (mel_bands() @ energy).clamp(min=FLOOR).log().T


@lru_cache(maxsize=1)
def cosines() -> Tensor:
    """Return [COEFFICIENTS, BANDS]."""
    number, band = torch.arange(COEFFICIENTS)[:, None].double(), torch.arange(BANDS)
    found = torch.cos(torch.pi * number * (2 * band + 1) / (2 * BANDS)) * (2 / BANDS) ** 0.5
    found[0] /= 2**0.5
    return found.float()


@lru_cache(maxsize=1)
def mel_bands() -> Tensor:
    """Return [BANDS, POINTS / 2 + 1]: how much of each frequency is in each band; triangles with a height of 1."""

    def mel(frequency: Tensor) -> Tensor:
        return 2595 * torch.log10(1 + frequency / 700)

    edges = torch.linspace(mel(torch.tensor(LOWEST)).item(), mel(torch.tensor(RATE / 2)).item(), BANDS + 2)
    hertz = 700 * (10 ** (edges.double() / 2595) - 1)
    frequencies = torch.linspace(0, RATE / 2, POINTS // 2 + 1, dtype=torch.float64)
    rising = (frequencies - hertz[:-2, None]) / (hertz[1:-1] - hertz[:-2])[:, None]
    falling = (hertz[2:, None] - frequencies) / (hertz[2:] - hertz[1:-1])[:, None]
    return torch.minimum(rising, falling).clamp(min=0).float()
