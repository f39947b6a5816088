"""Corpora: the rules, near duplicates, contamination, and that what is skipped is counted and named."""

from __future__ import annotations

import json
import random
import sys
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tunewright.data.prepare.executor import Engine
from tunewright.data.prepare.prepare import PrepareSettings, prepare
from tunewright.data.prepared import Prepared
from tunewright.data.text.near_duplicates import NearTexts, Passages, bands, passages_of, runs
from tunewright.data.text.quality_filters import RULES, broken_rule, words_of
from tunewright.errors import DataError, RecipeError
from tunewright.recipe.schema import Data

WORDS = [f"{a}{b}{c}" for a in "bdfgklmnprst" for b in ("an", "en", "or", "ut") for c in ("", "ing", "ed")]


def prose(seed: int, words: int = 120) -> str:
    """Sentences that break no rule."""
    draw = random.Random(seed)
    said = [draw.choice(WORDS) for _ in range(words)]
    said[::10] = [draw.choice(("the", "of", "and", "that")) for _ in said[::10]]
    said[5:16:10] = ["the", "of"]
    lines = [" ".join(said[start : start + 12]) + "." for start in range(0, words, 12)]
    return "\n".join(lines)


CHINESE = "".join(chr(0x4E00 + (index * 7919) % 3000) for index in range(80)) + "。"

# A text for each rule that breaks it and none before it.
BROKEN: dict[str, str] = {
    "least_words": "the end of the story.",
    "most_words": "",
    "least_word_length": " ".join(["a", "b", "to", "of", "xy", "the"] * 20),
    "most_word_length": " ".join(f"internationalisation{chr(97 + n % 26)}{n}" for n in range(60)) + " the of",
    "symbols": prose(1) + " ... # # # # # # # # # # # # # # # #",
    "bullets": "\n".join(f"- {line}" for line in prose(2).splitlines()),
    "ellipses": prose(3).replace(".", "..."),
    "letters": prose(4) + " " + " ".join(str(number * 37) for number in range(1000, 1060)),
    "stop_words": " ".join(random.Random(5).choices(WORDS, k=90)),
    "repeated_lines": "\n".join([*prose(6, 240).splitlines()[:12], *["so it is"] * 9]),
    "repeated_line_characters": "\n".join([*prose(7, 100).splitlines(), *[prose(8, 40).replace("\n", " ")] * 2]),
    "commonest_2": prose(9, 60).replace("\n", " ") + " of that" * 25,
    "commonest_3": "",
    "commonest_4": "",
    "line_ends": prose(10).replace(".", ""),
    "line_characters_twice": "\n".join([*prose(11, 240).splitlines(), *prose(11, 240).splitlines()[:3]]),
    "short_lines": "\n".join(f"{a} {b}." for a, b in zip(prose(12).split(), prose(13).split(), strict=True)),
}


@pytest.mark.parametrize("name", [name for name, text in BROKEN.items() if text])
def test_each_rule_is_broken_by_its_text_and_can_be_switched_off(name: str) -> None:
    sets = [group for group, rules in RULES.items() if name in rules]
    said = broken_rule(BROKEN[name], sets, {})
    assert said is not None and said.split(":")[0].endswith(f", {name}"), said
    others = {other: None for group in sets for other in RULES[group] if other != name}
    assert broken_rule(BROKEN[name], sets, others) == said
    assert broken_rule(BROKEN[name], sets, {**others, name: None}) is None


def test_good_texts_break_none() -> None:
    for seed in range(20):
        assert broken_rule(prose(seed), list(RULES), {}) is None
    assert broken_rule(CHINESE, list(RULES), {}) is None


def test_words_of_scripts_without_spaces_are_characters() -> None:
    assert words_of("Don't STOP, 中文3 words") == ["don't", "stop", "中", "文", "3", "words"]


def changed(text: str, share: float, seed: int) -> str:
    draw = random.Random(seed)
    return " ".join("changed" if draw.random() < share else word for word in text.split())


def similarity(one: str, other: str) -> float:
    a, b = (set(runs(text, 5).tolist()) for text in (one, other))
    return len(a & b) / len(a | b)


def repeated(texts: dict[int, str]) -> dict[int, int]:
    """Of texts by their places."""
    with closing(NearTexts()) as near:
        for place, text in texts.items():
            key = bands(text)
            assert key is not None
            near.add(place, key)
        return near.repeated()


def test_near_duplicates_are_found_as_often_as_the_formula_says() -> None:
    """1 − (1 − s⁸)¹⁴ for pairs of similarity s, over 300 pairs; and no text is like another by chance."""
    texts: dict[int, str] = {}
    expected, pairs = 0.0, 300
    for pair in range(pairs):
        text = prose(pair, 200)
        other = changed(text, 0.03, pair)
        expected += 1 - (1 - similarity(text, other) ** 8) ** 14
        texts |= {2 * pair: text, 2 * pair + 1: other}
    found = repeated(texts)
    assert all(one == other + 1 and other % 2 == 0 for one, other in found.items())
    assert abs(len(found) - expected) < 4 * np.sqrt(pairs) / 2
    assert 0.2 * pairs < expected < 0.95 * pairs


def test_a_chain_of_near_texts_has_one_first() -> None:
    texts = {3: prose(1), 5: prose(2), 8: prose(1), 9: prose(1) + " the end", 12: prose(2)}
    assert repeated(texts) == {8: 3, 9: 3, 12: 5}


def test_passages() -> None:
    known = Passages()
    passages = passages_of(prose(1))
    assert passages is not None and passages_of("too short to say anything") is None
    known.add(passages)
    known.close()
    inside = prose(2) + " " + " ".join(prose(1).split()[20:33])
    assert known.in_text(inside) and not known.in_text(prose(2))
    assert not known.in_text(prose(2) + " " + " ".join(prose(1).split()[20:32]))
    assert not known.in_text("too short to say anything")


def prepared_of(folder: Path, texts: list[str], engine: Engine = "local", **clean: Any) -> Prepared:
    path = folder / "texts.jsonl"
    path.write_text("\n".join(json.dumps({"text": text}) for text in texts), encoding="utf-8")
    data = Data(source=str(path), labelled=False, input=["text"], clean=clean)  # pyright: ignore
    out = folder / "by-ray" if engine == "ray" else None
    return prepare(data, settings=PrepareSettings(engine=engine, out=out), seed=0, target_kind=None, base=folder)


def test_what_is_skipped_is_counted_under_its_reason_and_named(tmp_path: Path) -> None:
    texts = [prose(seed) for seed in range(100)]
    plain = prepared_of(tmp_path, texts)
    test_row = plain.table("test")["_row"][0].as_py()
    leak = prose(500) + " " + " ".join(texts[test_row - 1].split()[:14])
    # Where a row lies depends on its number alone: rows that were of the training stay so.
    places = [row - 1 for row in plain.table("train")["_row"].to_pylist()[-4:]]
    first = plain.table("train")["_row"][0].as_py()
    for place, text in zip(places, ["short.", leak, texts[first - 1] + " the end", BROKEN["stop_words"]], strict=True):
        texts[place] = text
    found = prepared_of(tmp_path, texts, rules=["gopher"], near_duplicates=True, contamination=True)
    reasons = {entry.reason.split(":")[0]: entry for entry in found.manifest.skipped}
    assert {name: entry.count for name, entry in reasons.items()} == {
        "gopher, least_words": 1,
        "gopher, stop_words": 1,
        "nearly the same as an earlier text": 1,
        "it contains 13 consecutive words of a validation or test text": 1,
    }
    assert reasons["nearly the same as an earlier text"].examples[0].startswith(f"row {places[2] + 1}: 'as row {first}")
    assert found.manifest.used == 96 and found.manifest.read == 100
    limits = {"least_words": 1, "stop_words": None}
    assert prepared_of(tmp_path, texts, rules="gopher", limits=limits).manifest.used == 100


def test_what_does_not_fit(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="no such rule"):
        prepared_of(tmp_path, [prose(1)] * 3, limits={"least_word": 3})
    path = tmp_path / "numbers.csv"
    path.write_text("a,b\n" + "1,2\n" * 30)
    with pytest.raises(DataError, match="one column of texts"):
        prepare(
            Data(source=str(path), labelled=False, clean={"rules": "gopher"}),  # pyright: ignore
            seed=0,
            target_kind=None,
            base=tmp_path,
        )


@pytest.mark.slow
def test_workers_of_ray_leave_out_the_same_rows(tmp_path: Path) -> None:
    pytest.importorskip("ray", reason="Ray is no part of the extras")
    texts = [prose(seed % 90) + (" and so on" if seed > 90 else "") for seed in range(3000)]
    clean: dict[str, Any] = {"rules": ["gopher"], "near_duplicates": True, "contamination": True}
    here, there = (prepared_of(tmp_path, texts, engine, **clean) for engine in ("local", "ray"))
    assert here.manifest.to_json() == there.manifest.to_json()
    for split in here.manifest.splits:
        assert here.table(split).equals(there.table(split))


def test_ray_that_is_not_installed_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(RecipeError, match="Ray is not installed"):
        prepared_of(tmp_path, [prose(seed) for seed in range(9)], "ray", near_duplicates=True)
