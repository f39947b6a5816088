"""How speech was recognised: how fast, what the language model changed, the confusions, and mistakes to listen to."""

from __future__ import annotations

from tunewright.report import numbers
from tunewright.report.components import facts, number, table
from tunewright.report.html import Html, tag
from tunewright.report.inline_images import sound_uri
from tunewright.report.reading import Stage, shown
from tunewright.report.translations import Words
from tunewright.runs.summary.evaluation import SpeechConfusion, SpeechMistake

# All sounds of a stage together take at most so many characters of the page.
SOUNDS = 1_500_000


def speech(words: Words, stage: Stage) -> list[Html | None]:
    """Facts, confusions, mistakes; nothing where no speech was recognised."""
    found = stage.evaluation.speech if stage.evaluation is not None else None
    if found is None:
        return []
    without = number(numbers.percent(found.wer_without_search)) if found.searched else None
    return [
        tag("h3", words("speech")),
        facts(
            [
                (words("speech_seconds"), number(numbers.duration(found.seconds))),
                (words("speech_factor"), number(numbers.significant(found.real_time_factor, 2))),
                (words("speech_without"), without),
            ]
        ),
        *_confusions(words, found.confusions),
        *_mistakes(words, found.mistakes),
    ]


def _confusions(words: Words, entries: list[SpeechConfusion]) -> list[Html | None]:
    if not entries:
        return []
    nothing = tag("span", words("speech_nothing"), class_="even")
    rows = [
        [shown(entry.said, 60) or nothing, shown(entry.heard, 60) or nothing, numbers.count(entry.count)]
        for entry in entries
    ]
    head = [words("speech_said"), words("speech_heard"), words("speech_times")]
    return [table(head, rows, caption=words("speech_confusions"), right=(2,))]


def _mistakes(words: Words, entries: list[SpeechMistake]) -> list[Html | None]:
    left = SOUNDS
    items: list[Html] = []
    for entry in entries:
        uri = sound_uri(entry.audio)
        player = None
        if uri is not None and len(uri) <= left:
            left -= len(uri)
            player = tag("audio", controls=True, preload="none", src=uri, aria_label=shown(entry.said, 400) or None)
        items.append(tag("li", player, tag("p", _transcripts(words, entry))))
    if not items:
        return []
    return [tag("h3", words("mistakes")), tag("ul", items, class_="rows sounds")]


def _transcripts(words: Words, entry: SpeechMistake) -> list[object]:
    return [
        tag("b", words("speech_said"), words("colon")),
        shown(entry.said, 400),
        tag("br"),
        tag("b", words("speech_heard"), words("colon")),
        shown(entry.heard, 400) or tag("span", words("speech_nothing"), class_="even"),
        tag("br"),
        tag("span", words("row_number", row=numbers.count(entry.row)), class_="even"),
    ]
