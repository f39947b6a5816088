"""From the letters' probabilities at each moment to what was said, and when.

Log probabilities are [S, K] for S moments and K letters, number 0 of which is the blank.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from itertools import groupby

import numpy as np

from tunewright.data.audio.transcript_text import stands_alone
from tunewright.data.text.ngram_model import BEGIN, END, NGrams
from tunewright.models.speech.base import BLANK

# A letter that is less likely at a moment begins nothing new there.
LEAST = math.log(1e-3)
Prefix = tuple[int, ...]


@dataclass(frozen=True, kw_only=True)
class Beam:
    """How the likeliest text is searched: ln p(text | sound) + weight · ln p(words) + bonus · the words."""

    width: int
    """How many beginnings are kept at each moment."""
    words: NGrams | None = None
    weight: float = 0.0
    bonus: float = 0.0
    hot_words: frozenset[str] = field(default_factory=frozenset)
    hot_bonus: float = 0.0
    """What a hot word gets in addition."""

    def step(self, before: tuple[str, ...], word: str) -> float:
        """Return what a word adds behind others."""
        known = self.weight * self.words.log_probability(before, word) if self.words is not None else 0.0
        return known + (self.bonus + self.hot_bonus * (word in self.hot_words) if word != END else 0.0)


def greedy(log_probabilities: np.ndarray) -> list[int]:
    """Return the likeliest letter of each moment, without repetitions and blanks (Graves et al. 2006, section 3.2)."""
    best = log_probabilities.argmax(1).tolist()
    return [letter for letter, _ in groupby(best) if letter != BLANK]


@dataclass(frozen=True)
class _Said:
    """A beginning's words: what they add, the words, and the letters of the last one that is not complete yet."""

    score: float
    words: tuple[str, ...]
    begun: str

    def completed(self, beam: Beam) -> _Said:
        if not self.begun:
            return self
        return _Said(self.score + beam.step(self.words, self.begun), (*self.words, self.begun), "")

    def followed_by(self, letter: str, beam: Beam) -> _Said:
        if letter == " ":
            return self.completed(beam)
        if stands_alone(letter):
            return _Said(self.completed(beam).score, self.completed(beam).words, letter).completed(beam)
        return _Said(self.score, self.words, self.begun + letter)

    def ended(self, beam: Beam) -> float:
        whole = self.completed(beam)
        return whole.score + beam.step(whole.words, END)


def beam_search(log_probabilities: np.ndarray, letters: list[str], beam: Beam, *, least: float = LEAST) -> list[int]:
    """Return the best text's letters by prefix beam search: the ways to stretch a beginning are added up, not compared, and words
    count when they are complete (Graves and Jaitly 2014, algorithm 1; Hannun et al. 2014).

    Args:
        letters: [K − 1], what the numbers from 1 on mean.
        least: letters with a smaller ln p at a moment are not tried there.
    """
    # Of each beginning ln p that it ends in a blank, and that it ends in its last letter.
    beams: dict[Prefix, tuple[float, float]] = {(): (0.0, -math.inf)}
    said: dict[Prefix, _Said] = {(): _Said(0.0, (BEGIN,), "")}
    for moment in log_probabilities:
        tried = [(int(k), float(moment[k])) for k in np.flatnonzero(moment > least) if k != BLANK]
        blank = float(moment[BLANK])
        grown: dict[Prefix, list[float]] = {}
        for prefix, (in_blank, in_letter) in beams.items():
            both = _add(in_blank, in_letter)
            entry = grown.setdefault(prefix, [-math.inf, -math.inf])
            entry[0] = _add(entry[0], both + blank)
            for letter, value in tried:
                reached = both
                if prefix and prefix[-1] == letter:
                    entry[1] = _add(entry[1], in_letter + value)
                    reached = in_blank
                if reached == -math.inf:
                    continue
                longer = (*prefix, letter)
                if longer not in said:
                    said[longer] = said[prefix].followed_by(letters[letter - 1], beam)
                other = grown.setdefault(longer, [-math.inf, -math.inf])
                other[1] = _add(other[1], reached + value)
        ranked = sorted(grown.items(), key=lambda entry: _add(*entry[1]) + said[entry[0]].score, reverse=True)
        beams = {prefix: (in_blank, in_letter) for prefix, (in_blank, in_letter) in ranked[: beam.width]}
        said = {prefix: said[prefix] for prefix in beams}
    return list(max(beams, key=lambda prefix: _add(*beams[prefix]) + said[prefix].ended(beam)))


def _add(first: float, second: float) -> float:
    """ln(eᵃ + eᵇ)."""
    high, low = (first, second) if first > second else (second, first)
    return high if low == -math.inf else high + math.log1p(math.exp(low - high))


def moments_of(log_probabilities: np.ndarray, letters: list[int]) -> list[tuple[int, int]]:
    """For each letter the first moment and the one behind its last, on the likeliest of all ways to stretch them (Viterbi).

    Raises:
        ValueError: there are too few moments for the letters.
    """
    states = np.zeros(2 * len(letters) + 1, np.int64)
    states[1::2] = letters
    # From one letter straight to the next, over the blank between them, where they differ.
    jumps = np.zeros(len(states), bool)
    jumps[3::2] = states[3::2] != states[1:-2:2]
    best = np.full(len(states), -np.inf)
    best[: min(2, len(states))] = log_probabilities[0, states[:2]]
    came = np.zeros((len(log_probabilities), len(states)), np.int8)
    for moment in range(1, len(log_probabilities)):
        ways = np.full((3, len(states)), -np.inf)
        ways[0] = best
        ways[1, 1:] = best[:-1]
        ways[2, 2:] = np.where(jumps[2:], best[:-2], -np.inf)
        came[moment] = ways.argmax(0)
        best = ways.max(0) + log_probabilities[moment, states]
    place = len(states) - 1
    if place and best[place - 1] > best[place]:
        place -= 1
    if best[place] == -np.inf:
        raise ValueError(f"{len(letters)} characters do not fit into {len(log_probabilities)} frames")
    found = [[0, 0] for _ in letters]
    for moment in range(len(log_probabilities) - 1, -1, -1):
        if place % 2:
            span = found[place // 2]
            span[0] = moment
            span[1] = max(span[1], moment + 1)
        place -= int(came[moment, place])
    return [(start, end) for start, end in found]
