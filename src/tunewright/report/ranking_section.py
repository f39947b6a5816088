"""How items were ranked: what a figure such as recall@10 depends on besides the network."""

from __future__ import annotations

from tunewright.report import numbers
from tunewright.report.components import facts
from tunewright.report.html import Html, tag
from tunewright.report.reading import Stage
from tunewright.report.translations import Words


def ranking(words: Words, stage: Stage) -> list[Html | None]:
    """The protocol in a sentence and in figures; nothing where nothing was ranked."""
    found = stage.evaluation.ranking if stage.evaluation is not None else None
    if found is None:
        return []
    pairs = [
        (words("ranking_items"), numbers.count(found.items)),
        (words("ranking_users"), numbers.count(found.users)),
        (words("ranking_asked"), numbers.count(found.asked)),
        (words("ranking_unknown"), numbers.count(found.unknown)),
    ]
    return [tag("p", words("ranking_how"), class_="small"), facts(pairs, short=True)]
