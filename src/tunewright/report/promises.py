"""What differential privacy promises of a model, and what it does not, in sentences: the same on card, page and screen."""

from __future__ import annotations

from typing import Any

from tunewright.report import numbers
from tunewright.report.reading import mapping, number_from, sequence, words_of
from tunewright.report.translations import Words

REASONS = {
    "without privacy": "privacy_none_without",
    "unknown start": "privacy_none_unknown",
    "other units": "privacy_none_units",
}


def promises(words: Words, found: dict[str, Any]) -> list[str]:
    """One sentence for each data that was learned from with privacy, and one for published weights.

    Args:
        found: the summary's "privacy".
    """
    lines = [line for entry in sequence(found.get("guarantees")) if (line := _promise(words, mapping(entry)))]
    names = [name for entry in sequence(found.get("public")) if (name := words_of(entry))]
    return lines + [words("privacy_public", name=name) for name in names]


def _promise(words: Words, entry: dict[str, Any]) -> str | None:
    epsilon, delta = number_from(entry.get("epsilon")), number_from(entry.get("delta"))
    unit = words("privacy_user" if entry.get("unit") == "user" else "privacy_example")
    source, stages = words_of(entry.get("source")) or "?", [str(name) for name in sequence(entry.get("stages"))]
    key = REASONS.get(words_of(entry.get("reason")) or "")
    if key is not None:
        return words(key, unit=unit, source=source, by=words_of(entry.get("because_of")) or "?")
    if epsilon is None or delta is None:
        return None
    said = words("privacy_said", epsilon=numbers.significant(epsilon), delta=f"{delta:.2g}", unit=unit, source=source)
    again = number_from(entry.get("epsilon_prv"))
    parts = [said, words("privacy_again", epsilon=numbers.significant(again)) if again is not None else None]
    parts.append(words("privacy_composed", stages=", ".join(stages)) if len(stages) > 1 else None)
    return " ".join(part for part in parts if part)


def statistics(words: Words, found: dict[str, Any]) -> list[str]:
    """Each statistic of private rows that stands in the model without noise, by its column."""
    lines: list[str] = []
    for entry in map(mapping, sequence(found.get("statistics"))):
        kind, count = words_of(entry.get("kind")), number_from(entry.get("count")) or 0
        line = words(
            "privacy_statistic",
            column=words_of(entry.get("column")) or "?",
            count=numbers.count(count),
            kind=words.known(f"statistic: {kind}"),
        )
        if alone := number_from(entry.get("single")):
            key = "privacy_single_user" if entry.get("unit") == "user" else "privacy_single"
            line += words(key, count=numbers.count(alone))
        lines.append(line)
    return lines
