"""Which texts of a web corpus are worth learning from: the rules of two published corpora, each with its threshold.

A text that breaks a rule is skipped and counted under that rule. Every threshold can be changed or switched off by its name,
`data.clean.limits`. Sources: Rae et al. 2021, "Scaling language models: methods, analysis & insights from training Gopher",
section A.1.1 and table A1; Penedo et al. 2024, "The FineWeb datasets", section 3.6.

A word is a run of letters and digits; where a script writes no spaces (Chinese, Japanese, Thai …) it is one character. Rules that
count what is peculiar to words with spaces between them are not asked of texts that are mostly of such a script.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

# Scripts that write no spaces between words: Thai, Lao, Khmer, kana, Han.
_UNSPACED = "\u0e00-\u0eff\u1780-\u17ff\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003134f"
_WORD = re.compile(rf"[{_UNSPACED}]|[^\W_{_UNSPACED}]+(?:['’\-][^\W_{_UNSPACED}]+)*")
_FIRST_UNSPACED = re.compile(rf"[{_UNSPACED}]")
_BULLETS = ("•", "‣", "▪", "◦", "-", "*", "·", "●")
_ENDS = (".", "!", "?", '"', "”", "。", "！", "？", "」", "』", "…", ":", "：", ";", "；")
STOP_WORDS = frozenset({"the", "be", "to", "of", "and", "that", "have", "with"})


def words_of(text: str) -> list[str]:
    """Return the words of a text in lower case."""
    return _WORD.findall(text.lower())


def is_unspaced(character: str) -> bool:
    """Return whether it is of a script that writes no spaces between words."""
    return _FIRST_UNSPACED.match(character) is not None


@dataclass
class Text:
    """A text with what several rules need computed once."""

    text: str

    @cached_property
    def words(self) -> list[str]:
        return words_of(self.text)

    @cached_property
    def lines(self) -> list[str]:
        return [line.strip() for line in self.text.splitlines() if line.strip()]

    @cached_property
    def spaced(self) -> bool:
        """Whether most words are of a script that puts spaces between them."""
        return sum(bool(_FIRST_UNSPACED.match(word)) for word in self.words) <= len(self.words) / 2

    def share(self, part: float, whole: float) -> float:
        return part / whole if whole else 0.0


@dataclass(frozen=True, kw_only=True)
class Rule:
    """A number of a text, and the most or least that it may be."""

    measure: Callable[[Text], float]
    limit: float
    least: bool = False
    """Whether the limit is the least that is allowed; else the most."""
    spaced: bool = False
    """Whether it is asked only of scripts with spaces between words."""
    says: str
    """Of a text that breaks it, with {limit}."""

    def broken(self, text: Text, limit: float) -> bool:
        if self.spaced and not text.spaced:
            return False
        value = self.measure(text)
        return value < limit if self.least else value > limit


def _repeated_lines(text: Text) -> float:
    return text.share(len(text.lines) - len(set(text.lines)), len(text.lines))


def _repeated_line_characters(text: Text) -> float:
    repeated = sum(len(line) * (count - 1) for line, count in Counter(text.lines).items())
    return text.share(repeated, sum(map(len, text.lines)))


def _commonest(size: int) -> Callable[[Text], float]:
    """Return the share of a text's characters (of its words) that its commonest run of `size` words takes up."""

    def measure(text: Text) -> float:
        runs = Counter(zip(*(text.words[start:] for start in range(size))))
        if not runs:
            return 0.0
        run, count = max(runs.items(), key=lambda entry: (entry[1], sum(map(len, entry[0]))))
        return text.share(count * sum(map(len, run)), sum(map(len, text.words))) if count > 1 else 0.0

    return measure


def _symbols(text: Text) -> float:
    found = text.text.count("#") + text.text.count("…") + text.text.count("...")
    return text.share(found, len(text.words))


def _lines_with(test: Callable[[str], bool]) -> Callable[[Text], float]:
    return lambda text: text.share(sum(map(test, text.lines)), len(text.lines))


RULES: dict[str, dict[str, Rule]] = {
    "gopher": {
        "least_words": Rule(
            measure=lambda text: len(text.words), limit=50, least=True, says="fewer than {limit:g} words"
        ),
        "most_words": Rule(measure=lambda text: len(text.words), limit=100_000, says="more than {limit:g} words"),
        "least_word_length": Rule(
            measure=lambda text: text.share(sum(map(len, text.words)), len(text.words)),
            limit=3,
            least=True,
            spaced=True,
            says="words of fewer than {limit:g} letters on average",
        ),
        "most_word_length": Rule(
            measure=lambda text: text.share(sum(map(len, text.words)), len(text.words)),
            limit=10,
            spaced=True,
            says="words of more than {limit:g} letters on average",
        ),
        "symbols": Rule(measure=_symbols, limit=0.1, says="more than {limit:g} # or … for each word"),
        "bullets": Rule(
            measure=_lines_with(lambda line: line.startswith(_BULLETS)),
            limit=0.9,
            says="more than {limit:.0%} of the lines begin with a bullet",
        ),
        "ellipses": Rule(
            measure=_lines_with(lambda line: line.endswith(("…", "..."))),
            limit=0.3,
            says="more than {limit:.0%} of the lines end with an ellipsis",
        ),
        "letters": Rule(
            measure=lambda text: text.share(sum(any(map(str.isalpha, word)) for word in text.words), len(text.words)),
            limit=0.8,
            least=True,
            says="fewer than {limit:.0%} of the words have a letter",
        ),
        "stop_words": Rule(
            measure=lambda text: len(STOP_WORDS & set(text.words)),
            limit=2,
            least=True,
            spaced=True,
            says=f"fewer than {{limit:g}} of the words {', '.join(sorted(STOP_WORDS))}",
        ),
        "repeated_lines": Rule(
            measure=_repeated_lines, limit=0.3, says="more than {limit:.0%} of the lines are duplicates"
        ),
        "repeated_line_characters": Rule(
            measure=_repeated_line_characters,
            limit=0.2,
            says="more than {limit:.0%} of the characters are in duplicate lines",
        ),
        "commonest_2": Rule(
            measure=_commonest(2), limit=0.2, says="one run of 2 words is more than {limit:.0%} of the text"
        ),
        "commonest_3": Rule(
            measure=_commonest(3), limit=0.18, says="one run of 3 words is more than {limit:.0%} of the text"
        ),
        "commonest_4": Rule(
            measure=_commonest(4), limit=0.16, says="one run of 4 words is more than {limit:.0%} of the text"
        ),
    },
    "fineweb": {
        "line_ends": Rule(
            measure=_lines_with(lambda line: line.endswith(_ENDS)),
            limit=0.12,
            least=True,
            says="fewer than {limit:.0%} of the lines end with punctuation",
        ),
        "line_characters_twice": Rule(
            measure=_repeated_line_characters,
            limit=0.1,
            says="more than {limit:.0%} of the characters are in duplicate lines",
        ),
        "short_lines": Rule(
            measure=_lines_with(lambda line: len(line) < 30),
            limit=0.67,
            spaced=True,
            says="more than {limit:.0%} of the lines are shorter than 30 characters",
        ),
    },
}
LIMITS = {name: rule.limit for rules in RULES.values() for name, rule in rules.items()}


def broken_rule(text: str, sets: Sequence[str], limits: Mapping[str, float | None]) -> str | None:
    """Return what is wrong with a text by the first rule that it breaks; None: nothing.

    Args:
        sets: names of RULES.
        limits: other thresholds than the usual ones, by the rule's name; None: the rule is off.
    """
    seen = Text(text)
    for name in sets:
        for rule_name, rule in RULES[name].items():
            limit = limits.get(rule_name, rule.limit)
            if limit is not None and rule.broken(seen, limit):
                return f"{name}, {rule_name}: {rule.says.format(limit=limit)}"
    return None
