"""Scales and ticks: from numbers to places on a chart, with round numbers on its axes."""

from __future__ import annotations

import math
import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Scale:
    """A stretch of numbers laid onto a stretch of the picture; logarithmic if so wished."""

    low: float
    high: float
    start: float
    """Where `low` lies; `high` lies at `end`, which may be the smaller of the two."""
    end: float
    logarithmic: bool = False

    def __call__(self, number: float) -> float:
        low, high = self.low, self.high
        if self.logarithmic:
            low, high, number = math.log(low), math.log(high), math.log(max(number, self.low * 1e-3))
        share = (number - low) / (high - low) if high > low else 0.5
        return self.start + min(1.0, max(0.0, share)) * (self.end - self.start)


@dataclass(frozen=True, kw_only=True)
class Ticks:
    """Round numbers at equal steps; a step of 0 stands for a logarithmic axis."""

    values: list[float]
    step: float


def linear_ticks(low: float, high: float, wanted: int = 5) -> Ticks:
    """About so many ticks in [low, high], at multiples of 1, 2 or 5 times a power of ten (Heckbert 1990)."""
    if not high > low:
        return Ticks(values=[low], step=abs(low) or 1.0)
    rough = (high - low) / max(1, wanted - 1)
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(factor for factor in (1, 2, 5, 10) if factor * power >= rough * 0.7) * power
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return Ticks(values=[number * step for number in range(first, last + 1)], step=step)


def log_ticks(low: float, high: float) -> Ticks:
    """Powers of ten in [low, high], with 2 and 5 times them where those are few."""
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    factors = (1, 2, 5) if high / low < 100 else (1,)
    every = max(1, len(powers) // 6)
    found = [factor * 10.0**power for power in powers if power % every == 0 for factor in factors]
    return Ticks(values=[number for number in found if low * 0.999 <= number <= high * 1.001], step=0)


def whole_ticks(low: float, high: float, wanted: int = 6) -> Ticks:
    """Ticks at whole numbers only, for epochs."""
    found = linear_ticks(low, high, wanted)
    if found.step >= 1:
        return found
    return Ticks(values=[float(number) for number in range(math.ceil(low), math.floor(high) + 1)], step=1)


def padded(numbers: Iterable[float], share: float = 0.06) -> tuple[float, float]:
    """The range of the numbers with some room at both ends; of a single number, some room around it."""
    found = list(numbers)
    low, high = min(found), max(found)
    room = (high - low) * share or abs(high) * 0.05 or 0.5
    return low - room, high + room


def width(text: str, size: float) -> float:
    """About how many pixels a text of this size is wide: there is no font to ask."""
    wide = sum(unicodedata.east_asian_width(character) in "WF" for character in text)
    return size * (0.53 * (len(text) - wide) + wide)


def wrapped(text: str, room: float, size: float) -> list[str]:
    """The text on one line or two, broken between words; what is too long even for that is cut off."""
    if width(text, size) <= room:
        return [text]
    words = text.split(" ")
    first = next(count for count in range(len(words), -1, -1) if width(" ".join(words[:count]), size) <= room)
    if not first:
        return [cut(text, room, size)]
    return [" ".join(words[:first]), cut(" ".join(words[first:]), room, size)]


def cut(text: str, room: float, size: float) -> str:
    """The text, cut off with … where it would be wider than `room`."""
    if width(text, size) <= room:
        return text
    while text and width(text + "…", size) > room:
        text = text[:-1]
    return text.rstrip() + "…"
