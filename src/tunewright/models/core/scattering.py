"""Compute the scattering transform: image features without learned weights, which therefore cost no privacy budget.

Averages of |x ∗ ψ| and ||x ∗ ψ| ∗ ψ'| over Morlet wavelets ψ of several scales and directions (Bruna and Mallat 2013, "Invariant
scattering convolution networks", section 2). A linear layer on them, trained with differential privacy, outperforms
networks that learn their features (Tramèr and Boneh 2021, section 3).
"""

from __future__ import annotations

import math

import torch
from jaxtyping import Complex, Float
from torch import Tensor, nn
from torch.nn import functional as F

# Width and frequency of the wavelets at the finest scale (Andén et al. 2018, the filters of Kymatio).
WIDTH, FREQUENCY = 0.8, 3 * math.pi / 4


class Scattering(nn.Module):
    """Compute the scattering coefficients of images with J scales and L directions.

    [B, C, H, W] becomes [B, C · (1 + J L + L² J (J − 1) / 2), ⌊H / 2ᴶ⌋, ⌊W / 2ᴶ⌋].
    """

    wavelets: Tensor
    average: Tensor

    def __init__(self, size: tuple[int, int], scales: int, directions: int) -> None:
        super().__init__()
        self.scales, self.directions, self.size = scales, directions, size
        self.border = 2**scales
        padded = tuple(-(-length // self.border) * self.border + 2 * self.border for length in size)
        self.padded = (padded[0], padded[1])
        angles = [math.pi * number / directions for number in range(directions)]
        found = [
            torch.stack(
                [_morlet(self.padded, WIDTH * 2**j, FREQUENCY / 2**j, angle, 4 / directions) for angle in angles]
            )
            for j in range(scales)
        ]
        self.register_buffer("wavelets", torch.stack(found), persistent=False)  # [J, L, H, W], in frequency, real
        self.register_buffer("average", _gaussian(self.padded, WIDTH * 2 ** (scales - 1)), persistent=False)

    def forward(
        self, inputs: Float[Tensor, "batch channels height width"]
    ) -> Float[Tensor, "batch coefficients height_out width_out"]:
        height, width = self.size
        below, right = (whole - length - self.border for whole, length in zip(self.padded, self.size))
        x = F.pad(inputs, (self.border, right, self.border, below), mode="reflect")
        whole = torch.fft.fft2(x).unsqueeze(2)
        found = [self._averaged(whole, 1)]
        for first in range(self.scales):
            once = self._envelope(whole * self.wavelets[first], first)
            found.append(self._averaged(once, 2**first))
            for second in range(first + 1, self.scales):
                finer = _folded(self.wavelets[second], 2**first) * 4**first
                for direction in range(self.directions):  # one at a time to save memory
                    twice = self._envelope(once[:, :, direction, None] * finer, second - first)
                    found.append(self._averaged(twice, 2**second))
        step = self.border
        cut = torch.cat(found, 2)[..., 1 : 1 + height // step, 1 : 1 + width // step]
        return cut.flatten(1, 2)

    def _envelope(self, spectrum: Complex[Tensor, "*b h w"], halvings: int) -> Complex[Tensor, "*b h2 w2"]:
        """Return the spectrum of |x ∗ ψ| at every 2ʰ-th pixel, which is enough for coarse waves."""
        return torch.fft.fft2(torch.fft.ifft2(_folded(spectrum, 2**halvings)).abs())

    def _averaged(self, spectrum: Complex[Tensor, "*b h w"], step: int) -> Float[Tensor, "*b h2 w2"]:
        """Return every 2ᴶ-th pixel of the averages of a signal sampled at every `step`-th pixel."""
        low = _folded(self.average, step) * step**2
        return torch.fft.ifft2(_folded(spectrum * low, self.border // step)).real


def _folded(spectrum: Tensor, step: int) -> Tensor:
    """Return the spectrum of every `step`-th pixel: the mean of the parts that alias."""
    if step == 1:
        return spectrum
    # Slices are added: torch's sum over these axes of complex numbers takes three times as long as everything else.
    for axis in (-2, -1):
        first, *others = spectrum.chunk(step, axis)
        spectrum = sum(others, first)
    return spectrum / step**2


def _gaussian(size: tuple[int, int], width: float) -> Float[Tensor, "height width"]:
    """Return the Fourier transform of a Gaussian of sum 1 over the image."""
    return torch.fft.fft2(_window(size, width, 0.0, 1.0, 0.0)).real


def _morlet(
    size: tuple[int, int], width: float, frequency: float, angle: float, slant: float
) -> Float[Tensor, "height width"]:
    """Return the real Fourier transform of a wave under a Gaussian, minus a multiple of the Gaussian so that its mean is 0."""
    wave, under = _window(size, width, angle, slant, frequency), _window(size, width, angle, slant, 0.0)
    return torch.fft.fft2(wave - under * (wave.sum() / under.sum())).real


def _window(
    size: tuple[int, int], width: float, angle: float, slant: float, frequency: float
) -> Complex[Tensor, "height width"]:
    """Return a Gaussian times a wave in direction `angle`, periodic at the borders."""
    c, s = math.cos(angle), math.sin(angle)
    total = torch.zeros(size, dtype=torch.complex64)
    for over in (-2, -1, 0, 1, 2):
        for across in (-2, -1, 0, 1, 2):
            y = torch.arange(size[0])[:, None] + over * size[0]
            x = torch.arange(size[1])[None, :] + across * size[1]
            along, aside = c * x + s * y, -s * x + c * y
            total += torch.exp(
                torch.complex(-(along.square() + (slant * aside).square()) / (2 * width * width), frequency * along)
            )
    return total * (slant / (2 * math.pi * width * width))
