"""Synthesize "speech" in which each letter is a tone."""

from __future__ import annotations

import math

import numpy as np

from tunewright.data.audio.decode import RATE

TONES = {"a": 400, "b": 900, "c": 1800, "d": 3500}


def speak(text: str, seed: int, rate: int = RATE) -> np.ndarray:
    """Return samples [time]: a tone of random length for each letter, silence for a blank, and a little noise."""
    draw = np.random.default_rng(seed)
    parts = [np.zeros(rate // 20)]
    for letter in text:
        time = np.arange(int(rate * draw.uniform(0.1, 0.16))) / rate
        tone = 0.4 * np.sin(2 * math.pi * TONES.get(letter, 0) * draw.uniform(0.96, 1.04) * time)
        parts += [tone * np.hanning(len(time)), np.zeros(rate // 50)]
    samples = np.concatenate(parts)
    return samples + draw.normal(0, 0.005, len(samples))
