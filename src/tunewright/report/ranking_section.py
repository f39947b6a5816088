"""How items were ranked: what a figure such as recall@10 depends on besides the network."""

from __future__ import annotations

from tunewright.report import numbers
from tunewright.report.components import facts
from tunewright.report.html import Html, tag
from tunewright.report.reading import Stage, mapping, number_from
from tunewright.report.translations import Words

FACTS = (
    ("items", "ranking_items"),
    ("users", "ranking_users"),
    ("asked", "ranking_asked"),
    ("unknown", "ranking_unknown"),
)


def ranking(words: Words, stage: Stage) -> list[Html | None]:
    """The protocol in a sentence and in figures; nothing where nothing was ranked."""
    found = mapping(stage.part("evaluation").get("ranking"))
    if not found:
        return []
    pairs = [
        (words(said), numbers.count(value)) for key, said in FACTS if (value := number_from(found.get(key))) is not None
    ]
    return [tag("p", words("ranking_how"), class_="small"), facts(pairs, short=True)]
