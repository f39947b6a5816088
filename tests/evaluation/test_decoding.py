"""Decoding: a language model that counts, the best text by brute force, moments by brute force, subtitles."""

from __future__ import annotations

import itertools
import math
import random
from pathlib import Path

import numpy as np
import pytest

from tunewright.data.audio.transcript_text import spoken, spoken_words
from tunewright.data.text.ngram_model import BEGIN, END, NGrams, count_ngrams, read_arpa, write_arpa
from tunewright.errors import DataError
from tunewright.evaluation.decoding import Beam, beam_search, greedy, moments_of
from tunewright.inference.subtitles import subtitles

SENTENCES = [line.split() for line in ("turn on the light", "turn off the light", "open the door", "the door", "open")]


@pytest.mark.parametrize("order", [1, 2, 3, 4])
def test_chances_of_all_words_are_one(order: int) -> None:
    draw = random.Random(0)
    many = [draw.choices("abcdefgh", range(1, 9), k=draw.randrange(1, 9)) for _ in range(300)]
    for sentences in (SENTENCES, many):
        model = count_ngrams(sentences, order)
        known = [run[0] for run in model.log_probabilities if len(run) == 1 and run[0] != BEGIN]
        for before in [(), (BEGIN,), (BEGIN, "turn"), ("the", "light"), ("a", "b", "c"), ("never", "seen")]:
            total = sum(math.exp(model.log_probability(before, word)) for word in known)
            assert total == pytest.approx(1, abs=1e-9)


def test_it_prefers_what_it_saw_and_allows_the_rest() -> None:
    model = count_ngrams(SENTENCES, 3)
    assert model.log_probability((BEGIN, "turn"), "on") > model.log_probability((BEGIN, "turn"), "door")
    assert -20 < model.log_probability(("the",), "spaceship") < model.log_probability(("the",), "light")
    assert model.perplexity(SENTENCES) < 5 < model.perplexity([["light", "the", "on"]])


def test_by_hand() -> None:
    """Two words, each once, order 1: discounts 0.5, 1, 1.5; behind the words their end, twice."""
    model = count_ngrams([["a"], ["b"]], 1)
    # Counts a 1, b 1, </s> 2; taken 0.5 + 0.5 + 1 of 4; four words with the unknown one.
    assert math.exp(model.log_probability((), "a")) == pytest.approx(0.5 / 4 + 2 / 4 / 4)
    assert math.exp(model.log_probability((), END)) == pytest.approx(1 / 4 + 2 / 4 / 4)
    assert math.exp(model.log_probability((), "c")) == pytest.approx(2 / 4 / 4)
    # Order 2: behind <s> a and b, each once; a came behind one word, b too, </s> behind two.
    model = count_ngrams([["a"], ["b"]], 2)
    lower = 0.5 / 4 + 2 / 4 / 4
    assert math.exp(model.log_probability((BEGIN,), "a")) == pytest.approx(0.5 / 2 + 1 / 2 * lower)


def test_a_file_gives_the_same_model(tmp_path: Path) -> None:
    model = count_ngrams(SENTENCES, 3)
    write_arpa(model, tmp_path / "words.arpa")
    again = read_arpa(tmp_path / "words.arpa")
    assert again.order == 3 and again.log_probabilities.keys() == model.log_probabilities.keys()
    for before, word in [((BEGIN,), "turn"), (("the",), "door"), (("x", "y"), "light"), (("turn", "on"), END)]:
        assert again.log_probability(before, word) == pytest.approx(model.log_probability(before, word), abs=1e-5)


@pytest.mark.parametrize("text", ["", "no model", "\\data\\\n\n\\1-grams:\nminus one\n", "\\1-grams:\n-1 a b c\n"])
def test_what_is_no_arpa_file(tmp_path: Path, text: str) -> None:
    (tmp_path / "words.arpa").write_text(text)
    with pytest.raises(DataError, match=r"ARPA|holds no language model"):
        read_arpa(tmp_path / "words.arpa")
    with pytest.raises(DataError, match="cannot be read"):
        read_arpa(tmp_path / "nowhere.arpa")


def test_nothing_to_count() -> None:
    with pytest.raises(DataError, match="no words"):
        count_ngrams([[], []], 2)


def test_words_of_both_languages() -> None:
    assert spoken_words(spoken("Turn  ON 打开灯 ok")) == ["turn", "on", "打", "开", "灯", "ok"]


LETTERS = ["a", "b", " "]


def chances(seed: int, moments: int = 5) -> np.ndarray:
    found = np.random.default_rng(seed).gumbel(size=(moments, len(LETTERS) + 1))
    return found - np.log(np.exp(found).sum(1, keepdims=True))


def collapsed(way: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(letter for letter, _ in itertools.groupby(way) if letter)


def ways(table: np.ndarray) -> dict[tuple[int, ...], float]:
    """The chance of each text: of all ways to stretch it, added up."""
    found: dict[tuple[int, ...], float] = {}
    for way in itertools.product(range(table.shape[1]), repeat=len(table)):
        value = math.exp(sum(table[moment, letter] for moment, letter in enumerate(way)))
        found[collapsed(way)] = found.get(collapsed(way), 0.0) + value
    return found


def added(letters: tuple[int, ...], beam: Beam) -> float:
    """What the words of a text add, from the text itself."""
    words = "".join(LETTERS[letter - 1] for letter in letters).split()
    line: list[str] = [BEGIN]
    total = 0.0
    for word in [*words, END]:
        if beam.words is not None:
            total += beam.weight * beam.words.log_probability(tuple(line), word)
        if word != END:
            total += beam.bonus + (beam.hot_bonus if word in beam.hot_words else 0)
        line.append(word)
    return total


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("kind", ["plain", "words", "hot"])
def test_the_best_text_is_that_of_all(seed: int, kind: str) -> None:
    words: NGrams | None = count_ngrams([["a", "ab"], ["ab", "b"], ["ab"]], 2) if kind == "words" else None
    beam = Beam(
        width=10_000,
        words=words,
        weight=0.8,
        bonus=0.3 if kind == "words" else 0.0,
        hot_words=frozenset(["ba"]) if kind == "hot" else frozenset(),
        hot_bonus=2.0,
    )
    table = chances(seed)
    every = ways(table)
    best = max(every, key=lambda letters: math.log(every[letters]) + added(letters, beam))
    assert tuple(beam_search(table, LETTERS, beam, least=-math.inf)) == best


def test_a_search_finds_what_the_likeliest_moments_miss() -> None:
    # Nothing is the likeliest at both moments (0.36); some way to "a" is likelier (0.64).
    table = np.log(np.array([[0.6, 0.4], [0.6, 0.4]]))
    assert greedy(table) == [] and beam_search(table, ["a"], Beam(width=8)) == [1]


def test_chinese_letters_are_words() -> None:
    model = count_ngrams([["你", "好"]] * 4 + [["您"]], 2)
    table = np.log(np.array([[0.1, 0.5, 0.0001, 0.3999], [0.1, 0.0001, 0.45, 0.4499]]) + 1e-9)
    assert beam_search(table, ["你", "坏", "好"], Beam(width=8, words=model, weight=1.0)) == [1, 3]


@pytest.mark.parametrize("seed", range(6))
def test_moments_are_those_of_the_likeliest_way(seed: int) -> None:
    table = chances(seed, 6)
    letters = (1, 1, 2) if seed % 2 else (2, 3)
    every = [way for way in itertools.product(range(4), repeat=6) if collapsed(way) == letters]
    best = max(every, key=lambda way: sum(table[moment, letter] for moment, letter in enumerate(way)))
    spans = [
        (start, start + len(list(group)))
        for start, letter, group in (
            (sum(1 for _ in best[:place]), letter, [letter] * size) for place, letter, size in _runs(best)
        )
        if letter
    ]
    assert moments_of(table, list(letters)) == spans


def _runs(way: tuple[int, ...]) -> list[tuple[int, int, int]]:
    place, found = 0, []
    for letter, group in itertools.groupby(way):
        size = len(list(group))
        found.append((place, letter, size))
        place += size
    return found


def test_too_few_moments() -> None:
    with pytest.raises(ValueError, match="do not fit"):
        moments_of(chances(0, 2), [1, 1])


def test_subtitles() -> None:
    words = [
        {"word": "turn", "start": 0.1, "end": 0.3},
        {"word": "on", "start": 0.4, "end": 0.5},
        {"word": "灯", "start": 2.0, "end": 2.1},
        {"word": "光", "start": 2.1, "end": 3661.25},
    ]
    assert subtitles(words, "srt") == (
        "1\n00:00:00,100 --> 00:00:00,500\nturn on\n\n2\n00:00:02,000 --> 01:01:01,250\n灯光\n"
    )
    assert subtitles(words, "vtt").startswith("WEBVTT\n\n00:00:00.100 --> 00:00:00.500\nturn on\n\n")
