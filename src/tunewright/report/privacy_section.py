"""What differential privacy promises of a stage's model: over all stages before it, what this one spent, and what is not covered."""

from __future__ import annotations

from tunewright.report import numbers
from tunewright.report.components import as_found, facts
from tunewright.report.html import Html, tag
from tunewright.report.promises import promises, statistics
from tunewright.report.reading import Stage
from tunewright.report.translations import Words
from tunewright.runs.summary.training import PrivacyAccount


def privacy(words: Words, stage: Stage) -> list[Html | None]:
    """The section of a stage that was trained with differential privacy, or that starts from one."""
    if (found := stage.summary.privacy) is None:
        return []
    own, kept = stage.summary.training.privacy, statistics(words, found.statistics)
    listed = tag("ul", [tag("li", line) for line in kept], class_="small")
    return [
        tag("h3", words("privacy")),
        *(tag("p", line) for line in promises(words, found)),
        *(_own(words, own) if own is not None else []),
        *([tag("p", words("privacy_kept")), listed] if kept else []),
        tag("p", words("privacy_not")),
        tag("ul", [tag("li", as_found(words, note)) for note in found.not_covered], class_="small"),
    ]


def _own(words: Words, own: PrivacyAccount) -> list[Html | None]:
    """The account of this stage alone."""
    return [
        tag("p", words("privacy_own")),
        facts(
            [
                (words("privacy_epsilon"), numbers.significant(own.epsilon)),
                (words("privacy_delta"), f"{own.delta:.2g}"),
                (words("privacy_units"), numbers.count(own.units)),
                (words("privacy_noise"), numbers.significant(own.noise_multiplier)),
                (words("privacy_clip"), numbers.significant(own.clip_norm)),
                (words("privacy_rate"), f"{own.rate:.3%}"),
                (words("privacy_steps"), numbers.count(own.steps)),
            ],
            short=True,
        ),
    ]
