"""A language model that counts: how likely a word is after the few words before it.

Interpolated modified Kneser–Ney smoothing (Chen and Goodman 1999, section 3): from each count a discount is taken, D₁, D₂ or D₃₊
by the count, estimated from how many runs of words come once, twice, three and four times; what is taken away goes to the model
of one word less, whose counts are in how many different contexts a run is seen. Words that were never seen share the
lowest model's last discount evenly with all others (as in Heafield et al. 2013). Files are in the ARPA format, base 10.
"""

from __future__ import annotations

import math
import re
from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from tunewright.data.lines import numbered_lines
from tunewright.errors import DataError
from tunewright.files import write_atomic
from tunewright.limits import NGRAMS, TABLE_ROW

BEGIN, END, UNKNOWN = "<s>", "</s>", "<unk>"
Words = tuple[str, ...]
# What is discounted where too little was counted to estimate it.
USUAL_DISCOUNTS = (0.5, 1.0, 1.5)
# What a word has that nothing may begin with.
NEVER = -99.0


@dataclass(frozen=True)
class NGrams:
    """log₁₀ probabilities of runs of 1 to `order` words, and what a model of less words is weighted with behind each."""

    order: int
    log_probabilities: dict[Words, float]
    backoffs: dict[Words, float]

    def log_probability(self, before: Words, word: str) -> float:
        """ln p(word | before), of which the last `order` − 1 words count; a word that is not known is `UNKNOWN`."""
        if (word,) not in self.log_probabilities:
            word = UNKNOWN
        before = before[len(before) - self.order + 1 :] if len(before) >= self.order else before
        weight = 0.0
        while before:
            if (found := self.log_probabilities.get((*before, word))) is not None:
                return (weight + found) * math.log(10)
            weight += self.backoffs.get(before, 0.0)
            before = before[1:]
        return (weight + self.log_probabilities.get((word,), NEVER)) * math.log(10)

    def perplexity(self, sentences: Iterable[list[str]]) -> float:
        """exp of the mean −ln p over all words and the ends of the sentences."""
        total, count = 0.0, 0
        for words in sentences:
            line = (BEGIN, *words, END)
            total -= sum(self.log_probability(line[:place], line[place]) for place in range(1, len(line)))
            count += len(line) - 1
        return math.exp(total / max(1, count))


def count_ngrams(sentences: Iterable[list[str]], order: int) -> NGrams:
    """Learn from sentences.

    Raises:
        DataError: there is no word in them.
    """
    counts: list[Counter[Words]] = [Counter() for _ in range(order)]
    for words in sentences:
        line = (BEGIN, *words, END)
        for size in range(1, order + 1):
            counts[size - 1].update(line[start : start + size] for start in range(len(line) - size + 1))
    if not any(word not in ((BEGIN,), (END,)) for word in counts[0]):
        raise DataError("there are no words for a language model to count", fix="give it texts, or leave it out")
    for size in range(order - 1, 0, -1):
        # Below the highest order a run counts for each word that it was seen behind; nothing stands before a beginning.
        behind: Counter[Words] = Counter(run[1:] for run in counts[size])
        counts[size - 1] = Counter(
            {run: count if run[0] == BEGIN else behind[run] for run, count in counts[size - 1].items()}
        )
    del counts[0][(BEGIN,)]
    vocabulary = len(counts[0]) + 1  # with UNKNOWN
    probabilities: dict[Words, float] = {}
    weights: dict[Words, float] = {}
    for size in range(1, order + 1):
        discounts = _discounts(counts[size - 1])
        totals: dict[Words, float] = defaultdict(float)
        taken: dict[Words, float] = defaultdict(float)
        for run, count in counts[size - 1].items():
            totals[run[:-1]] += count
            taken[run[:-1]] += discounts[min(count, 3) - 1]
        for run, count in counts[size - 1].items():
            before = run[:-1]
            kept = (count - discounts[min(count, 3) - 1]) / totals[before]
            lower = probabilities[run[1:]] if size > 1 else 1 / vocabulary
            probabilities[run] = kept + taken[before] / totals[before] * lower
        if size == 1:
            probabilities[(UNKNOWN,)] = taken[()] / totals[()] / vocabulary
        else:
            weights |= {before: taken[before] / totals[before] for before in totals}
    found = {run: math.log10(value) for run, value in probabilities.items()}
    return NGrams(order, {(BEGIN,): NEVER, **found}, {run: math.log10(value) for run, value in weights.items()})


def _discounts(counts: Counter[Words]) -> tuple[float, float, float]:
    """Chen and Goodman 1999, equation 17, where all four counts of counts are there and the result is between 0 and the count."""
    of = Counter(counts.values())
    if not all(of[number] for number in (1, 2, 3, 4)):
        return USUAL_DISCOUNTS
    share = of[1] / (of[1] + 2 * of[2])
    found = (
        1 - 2 * share * of[2] / of[1],
        2 - 3 * share * of[3] / of[2],
        3 - 4 * share * of[4] / of[3],
    )
    return found if all(0 < value < place for place, value in enumerate(found, start=1)) else USUAL_DISCOUNTS


def write_arpa(model: NGrams, path: Path) -> None:
    """The model as an ARPA file."""
    by_size: list[list[Words]] = [[] for _ in range(model.order)]
    for run in model.log_probabilities:
        by_size[len(run) - 1].append(run)
    lines = ["\\data\\", *(f"ngram {size}={len(runs)}" for size, runs in enumerate(by_size, start=1)), ""]
    for size, runs in enumerate(by_size, start=1):
        lines.append(f"\\{size}-grams:")
        for run in sorted(runs):
            weight = f"\t{model.backoffs[run]:.7g}" if run in model.backoffs else ""
            lines.append(f"{model.log_probabilities[run]:.7g}\t{' '.join(run)}{weight}")
        lines.append("")
    write_atomic(path, "\n".join([*lines, "\\end\\", ""]))


def read_arpa(path: Path) -> NGrams:
    """Read a model from an ARPA file, whoever wrote it.

    Raises:
        DataError: there is no such file, or it is not of that format; says which line.
    """
    probabilities: dict[Words, float] = {}
    backoffs: dict[Words, float] = {}
    size = 0
    for number, line in numbered_lines(path, TABLE_ROW):
        try:
            text = line.decode("utf-8").strip()
            if (heading := re.fullmatch(r"\\(\d{1,2})-grams:", text)) is not None:
                size = int(heading[1])
            elif text == "\\end\\":
                break
            elif size and text:
                cells = text.split()
                if len(cells) not in (size + 1, size + 2):
                    raise ValueError
                run = tuple(cells[1 : size + 1])
                probabilities[run] = _logarithm(cells[0])
                if len(cells) == size + 2:
                    backoffs[run] = _logarithm(cells[-1])
                NGRAMS.require(len(probabilities), "the language model is too large", file=path)
        except ValueError:
            raise DataError(
                "this is no line of an ARPA file",
                file=path,
                place=f"line {number}",
                found=line.decode("utf-8", "replace"),
                expected=f"log10 of a probability, {size} words, and perhaps a weight",
                fix="write the file again",
            ) from None
    singles = [value for run, value in probabilities.items() if len(run) == 1]
    if not singles:
        raise DataError("the file holds no language model", file=path, expected="an ARPA file", fix="check its name")
    probabilities.setdefault((UNKNOWN,), min(singles))
    return NGrams(max(map(len, probabilities)), probabilities, backoffs)


def _logarithm(text: str) -> float:
    """Raises ValueError where the text is no logarithm of a finite number."""
    value = float(text)
    if math.isnan(value) or value == math.inf:
        raise ValueError
    return value
