"""What a recogniser of speech did: how fast, what a language model brought, what it takes for what, and its mistakes to listen to."""

from __future__ import annotations

from typing import Any

from tunewright.report import numbers
from tunewright.report.components import facts, number, table
from tunewright.report.html import Html, tag
from tunewright.report.inline_images import sound_uri
from tunewright.report.reading import Stage, mapping, number_from, sequence, shown, words_of
from tunewright.report.translations import Words

# All sounds of a stage together take at most so many characters of the page.
SOUNDS = 1_500_000


def speech(words: Words, stage: Stage) -> list[Html | None]:
    """Facts, confusions, mistakes; nothing where the stage heard nothing."""
    found = mapping(stage.part("evaluation").get("speech"))
    if not found:
        return []
    factor, without = number_from(found.get("real_time_factor")), number_from(found.get("wer_without_search"))
    seconds = number_from(found.get("seconds"))
    return [
        tag("h3", words("speech")),
        facts(
            [
                (words("speech_seconds"), None if seconds is None else number(numbers.duration(seconds))),
                (words("speech_factor"), None if factor is None else number(numbers.significant(factor, 2))),
                (
                    words("speech_without"),
                    number(numbers.value("wer", without)) if found.get("searched") and without is not None else None,
                ),
            ]
        ),
        *_confusions(words, [mapping(entry) for entry in sequence(found.get("confusions"))]),
        *_mistakes(words, [mapping(entry) for entry in sequence(found.get("mistakes"))]),
    ]


def _confusions(words: Words, entries: list[dict[str, Any]]) -> list[Html | None]:
    if not entries:
        return []
    nothing = tag("span", words("speech_nothing"), class_="even")
    rows = [
        [
            shown(entry.get("said"), 60) or nothing,
            shown(entry.get("heard"), 60) or nothing,
            numbers.count(number_from(entry.get("count")) or 0),
        ]
        for entry in entries
    ]
    head = [words("speech_said"), words("speech_heard"), words("speech_times")]
    return [table(head, rows, caption=words("speech_confusions"), right=(2,))]


def _mistakes(words: Words, entries: list[dict[str, Any]]) -> list[Html | None]:
    left = SOUNDS
    items: list[Html] = []
    for entry in entries:
        uri = sound_uri(entry.get("audio"))
        player = None
        if uri is not None and len(uri) <= left:
            left -= len(uri)
            player = tag("audio", controls=True, preload="none", src=uri, aria_label=words_of(entry.get("said")))
        row = number_from(entry.get("row"))
        items.append(
            tag(
                "li",
                player,
                tag(
                    "p",
                    tag("b", words("speech_said"), words("colon")),
                    shown(entry.get("said"), 400),
                    tag("br"),
                    tag("b", words("speech_heard"), words("colon")),
                    shown(entry.get("heard"), 400) or tag("span", words("speech_nothing"), class_="even"),
                    tag("br"),
                    tag("span", words("row_number", row=numbers.count(row)), class_="even")
                    if row is not None
                    else None,
                ),
            )
        )
    if not items:
        return []
    return [tag("h3", words("mistakes")), tag("ul", items, class_="rows sounds")]
