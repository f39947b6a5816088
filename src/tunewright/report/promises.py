"""What differential privacy promises of a model, and what it does not, in sentences: the same on card, page and screen."""

from __future__ import annotations

from collections.abc import Sequence

from tunewright.report import numbers
from tunewright.report.translations import Words
from tunewright.runs.summary.training import Guarantee, PrivacySummary, Statistic

REASONS = {
    "without privacy": "privacy_none_without",
    "unknown start": "privacy_none_unknown",
    "other units": "privacy_none_units",
}
UNITS = {"user": "privacy_user", "example": "privacy_example"}
SINGLES = {"user": "privacy_single_user", "example": "privacy_single"}


def promises(words: Words, found: PrivacySummary) -> list[str]:
    """One sentence for each data that was learned from with privacy, and one for each published model."""
    lines = [line for entry in found.guarantees if (line := _promise(words, entry))]
    return lines + [words("privacy_public", name=name) for name in found.public]


def _promise(words: Words, entry: Guarantee) -> str | None:
    unit = words(UNITS[entry.unit])
    if entry.reason is not None:
        return words(REASONS[entry.reason], unit=unit, source=entry.source, by=entry.because_of)
    if entry.epsilon is None:
        return None
    epsilon, delta = numbers.significant(entry.epsilon), f"{entry.delta:.2g}"
    parts = [words("privacy_said", epsilon=epsilon, delta=delta, unit=unit, source=entry.source)]
    if entry.epsilon_prv is not None:
        parts.append(words("privacy_again", epsilon=numbers.significant(entry.epsilon_prv)))
    if len(entry.stages) > 1:
        parts.append(words("privacy_composed", stages=", ".join(entry.stages)))
    return " ".join(parts)


def statistics(words: Words, found: Sequence[Statistic]) -> list[str]:
    """Each statistic of private rows that is in the model without noise, by its column."""
    lines: list[str] = []
    for entry in found:
        kind, count = words.known(f"statistic: {entry.kind}"), numbers.count(entry.count)
        line = words("privacy_statistic", column=entry.column, count=count, kind=kind)
        if entry.single:
            line += words(SINGLES[entry.unit], count=numbers.count(entry.single))
        lines.append(line)
    return lines
