"""What a private training cost: ε and δ, how they came about, and what they say nothing of."""

from __future__ import annotations

from tunewright.report import numbers
from tunewright.report.html import Html, tag
from tunewright.report.parts import as_found, facts
from tunewright.report.reading import Stage, number_from, sequence, words_of
from tunewright.report.words import Words


def privacy(words: Words, stage: Stage) -> list[Html | None]:
    """The account of a stage that was trained with differential privacy."""
    found = stage.part("training", "privacy")
    epsilon, delta, units = (number_from(found.get(key)) for key in ("epsilon", "delta", "units"))
    if epsilon is None or delta is None or units is None:
        return []
    unit = words("privacy_user" if found.get("unit") == "user" else "privacy_example")
    again = number_from(found.get("epsilon_prv"))
    noise, clip, rate, steps = (
        number_from(found.get(key)) for key in ("noise_multiplier", "clip_norm", "rate", "steps")
    )
    left = [note for entry in sequence(found.get("not_covered")) if (note := words_of(entry))]
    return [
        tag("h3", words("privacy")),
        tag(
            "p",
            words(
                "privacy_said",
                epsilon=numbers.significant(epsilon),
                delta=f"{delta:.2g}",
                unit=unit,
                units=numbers.count(units),
            ),
        ),
        facts(
            [
                (words("privacy_prv"), numbers.significant(again) if again is not None else None),
                (words("privacy_noise"), numbers.significant(noise) if noise is not None else None),
                (words("privacy_clip"), numbers.significant(clip) if clip is not None else None),
                (words("privacy_rate"), f"{rate:.3%}" if rate is not None else None),
                (words("privacy_steps"), numbers.count(steps) if steps is not None else None),
            ],
            short=True,
        ),
        tag("p", words("privacy_not")),
        tag("ul", [tag("li", as_found(words, note)) for note in left], class_="small"),
    ]
