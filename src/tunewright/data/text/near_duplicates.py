"""Texts that are nearly the same, and texts that hold a passage of another: by hashes of runs of words.

Near duplicates by MinHash (Broder 1997) as in Penedo et al. 2024, section 3.5: 112 hashes of the runs of five words, in 14 bands
of 8. Two texts that agree in a band count as the same; of texts with Jaccard similarity s that is 1 − (1 − s⁸)¹⁴: 77 % at 0.75,
92 % at 0.8. Passages are runs of 13 words, as in Brown et al. 2020, appendix C.
"""

from __future__ import annotations

import tempfile
from zlib import crc32

import numpy as np

from tunewright.data.text.quality_filters import words_of

RUN, BANDS, PER_BAND = 5, 14, 8
PASSAGE = 13
# Constants of the hashes, drawn once: the same texts have the same hashes anywhere.
_DRAW = np.random.Generator(np.random.PCG64(20241125))
_FACTORS = _DRAW.integers(1, 2**63, (BANDS * PER_BAND, 1), dtype=np.uint64) | np.uint64(1)
_ADDED = _DRAW.integers(0, 2**63, (BANDS * PER_BAND, 1), dtype=np.uint64)
_MIX = np.uint64(0x9E3779B97F4A7C15)
# Runs that are hashed 112 times at once: 4 MB of numbers.
_AT_ONCE = 4096


def runs(text: str, length: int) -> np.ndarray:
    """Return a hash of each run of `length` words [n] uint64; of a shorter text one of all its words."""
    words = words_of(text)
    values = np.array([crc32(word.encode()) for word in words], np.uint64)
    if not len(values):
        return values
    length = min(length, len(values))
    count = len(values) - length + 1
    found = np.zeros(count, np.uint64)
    with np.errstate(over="ignore"):
        for place in range(length):
            found = (found ^ values[place : place + count]) * _MIX
            found ^= found >> np.uint64(29)
    return found


def bands(text: str) -> np.ndarray | None:
    """One number for each band [14] uint64; None for a text without words."""
    found = np.unique(runs(text, RUN))
    if not len(found):
        return None
    least = np.full(BANDS * PER_BAND, np.iinfo(np.uint64).max, np.uint64)
    with np.errstate(over="ignore"):
        for start in range(0, len(found), _AT_ONCE):
            part = found[start : start + _AT_ONCE]
            # Multiply and take the high bits: the low ones of a product depend on few.
            # In its place, a row for each hash: half the time of new arrays with a column for each.
            hashed = part * _FACTORS
            hashed += _ADDED
            hashed >>= np.uint64(16)
            least = np.minimum(least, hashed.min(1))
        key = np.zeros(BANDS, np.uint64)
        for place in range(PER_BAND):
            key = (key ^ least.reshape(BANDS, PER_BAND)[:, place]) * _MIX
            key ^= key >> np.uint64(31)
    return key


def passages_of(text: str) -> np.ndarray | None:
    """Return a hash of each run of 13 words [n] uint64, rising; None for a shorter text."""
    return np.unique(runs(text, PASSAGE)) if len(words_of(text)) >= PASSAGE else None


class NearTexts:
    """Gathers the bands of many texts on disk, then says which are nearly the same as an earlier one."""

    def __init__(self) -> None:
        self._file = tempfile.TemporaryFile()  # noqa: SIM115  `close` does
        self._places: list[int] = []

    def close(self) -> None:
        self._file.close()

    def add(self, place: int, key: np.ndarray) -> None:
        """Note the bands of a text; `place` rises from one to the next."""
        self._file.write(key.tobytes())
        self._places.append(place)

    def repeated(self) -> dict[int, int]:
        """Return the places of the texts that are nearly the same as one before, each with the place of the first of its kind."""
        count = len(self._places)
        self._file.flush()
        keys = np.memmap(self._file, np.uint64, "r", shape=(count, BANDS)) if count else np.empty((0, BANDS), np.uint64)
        first = np.arange(count)

        def root(index: int) -> int:
            while first[index] != index:
                first[index] = first[first[index]]
                index = first[index]
            return index

        for band in range(BANDS):
            values = np.array(keys[:, band])
            order = np.argsort(values, kind="stable")
            same = np.flatnonzero(values[order][1:] == values[order][:-1])
            for index in same:
                one, other = root(int(order[index])), root(int(order[index + 1]))
                # The earlier one represents both.
                first[max(one, other)] = min(one, other)
        return {self._places[i]: self._places[root(i)] for i in range(count) if root(i) != i}


class Passages:
    """The runs of 13 words of some texts."""

    def __init__(self) -> None:
        self._parts: list[np.ndarray] = []
        self._known = np.empty(0, np.uint64)

    def add(self, passages: np.ndarray) -> None:
        """Those of a text."""
        self._parts.append(passages)

    def close(self) -> None:
        """Nothing is added any more."""
        self._known = np.unique(np.concatenate([self._known, *self._parts]))
        self._parts = []

    def in_text(self, text: str) -> bool:
        """Return whether a text contains one of them."""
        found = passages_of(text) if len(self._known) else None
        if found is None:
            return False
        place = np.minimum(np.searchsorted(self._known, found), len(self._known) - 1)
        return bool((self._known[place] == found).any())
