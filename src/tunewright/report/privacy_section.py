"""What differential privacy promises of a stage's model: over all stages before it, what this one cost, and what is not covered."""

from __future__ import annotations

from tunewright.report import numbers
from tunewright.report.components import as_found, facts
from tunewright.report.html import Html, tag
from tunewright.report.promises import promises, statistics
from tunewright.report.reading import Stage, number_from, sequence, words_of
from tunewright.report.translations import Words


def privacy(words: Words, stage: Stage) -> list[Html | None]:
    """The section of a stage that was trained with differential privacy, or that goes on from one."""
    found, own = stage.part("privacy"), stage.part("training", "privacy")
    if not (said := promises(words, found)):
        return []
    kept = statistics(words, found)
    left = [note for entry in sequence(found.get("not_covered")) if (note := words_of(entry))]
    return [
        tag("h3", words("privacy")),
        *(tag("p", line) for line in said),
        *_own(words, own),
        *(
            [tag("p", words("privacy_kept")), tag("ul", [tag("li", line) for line in kept], class_="small")]
            if kept
            else []
        ),
        tag("p", words("privacy_not")),
        tag("ul", [tag("li", as_found(words, note)) for note in left], class_="small"),
    ]


def _own(words: Words, own: dict[str, object]) -> list[Html | None]:
    """The account of this stage alone."""
    epsilon, delta, noise, clip, rate, steps = (
        number_from(own.get(key)) for key in ("epsilon", "delta", "noise_multiplier", "clip_norm", "rate", "steps")
    )
    if epsilon is None:
        return []
    units = number_from(own.get("units"))
    return [
        tag("p", words("privacy_own")),
        facts(
            [
                (words("privacy_epsilon"), numbers.significant(epsilon)),
                (words("privacy_delta"), f"{delta:.2g}" if delta is not None else None),
                (words("privacy_units"), numbers.count(units) if units is not None else None),
                (words("privacy_noise"), numbers.significant(noise) if noise is not None else None),
                (words("privacy_clip"), numbers.significant(clip) if clip is not None else None),
                (words("privacy_rate"), f"{rate:.3%}" if rate is not None else None),
                (words("privacy_steps"), numbers.count(steps) if steps is not None else None),
            ],
            short=True,
        ),
    ]
