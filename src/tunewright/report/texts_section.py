"""What became of the texts that a stage learned from: how many tokens, by which tokenizer, from which sources."""

from __future__ import annotations

from typing import Any

from tunewright.report import numbers
from tunewright.report.components import as_found, facts, number, table
from tunewright.report.html import Html, tag
from tunewright.report.reading import Stage, mapping, number_from, sequence, words_of
from tunewright.report.translations import Words


def texts(words: Words, stage: Stage) -> list[Html | None]:
    """The figures, and what an epoch reads of each source of a mix."""
    found = stage.part("texts")
    if not found:
        return []
    if (seconds := number_from(found.get("seconds"))) is not None:
        return _recordings(words, found, seconds)
    tokenizer = mapping(found.get("tokenizer"))
    counted = [
        (words(said), numbers.count(value))
        for key, said in (
            ("tokens", "texts_tokens"),
            ("trained", "texts_trained"),
            ("examples", "texts_examples"),
            ("max_length", "texts_max_length"),
            ("cut", "texts_cut"),
        )
        if (value := number_from(found.get(key))) is not None
    ]
    pieces, size, unknown = (
        number_from(tokenizer.get(key)) for key in ("vocabulary", "bytes_per_token", "unknown_rate")
    )
    longest = [tag("code", repr(piece)) for piece in map(words_of, sequence(tokenizer.get("longest"))) if piece]
    return [
        tag("h3", words("texts")),
        facts(
            [
                *counted,
                (words("pieces"), numbers.count(pieces) if pieces is not None else None),
                (words("bytes_per_token"), numbers.significant(size, 3) if size is not None else None),
                (words("unknown_rate"), f"{unknown:.2%}" if unknown is not None else None),
                (words("longest"), [[" ", piece] for piece in longest] or None),
            ],
            short=True,
        ),
        _mix(words, stage),
    ]


def _recordings(words: Words, found: dict[str, Any], seconds: float) -> list[Html | None]:
    counts = [
        (words(said), numbers.count(value))
        for key, said in (
            ("examples", "recordings_examples"),
            ("letters", "recordings_letters"),
            ("cut", "recordings_cut"),
        )
        if (value := number_from(found.get(key))) is not None
    ]
    return [
        tag("h3", words("recordings")),
        facts([*counts, (words("recordings_seconds"), numbers.duration(seconds))], short=True),
    ]


def _mix(words: Words, stage: Stage) -> Html | None:
    rows = [
        (
            as_found(words, words_of(entry.get("source")) or "?"),
            number(numbers.significant(number_from(entry.get("weight")) or 0)),
            number(numbers.count(number_from(entry.get("rows")) or 0)),
            number(numbers.count(number_from(entry.get("read")) or 0)),
            number(f"{number_from(entry.get('share')) or 0:.0%}"),
        )
        for entry in map(mapping, sequence(stage.part("texts").get("mix")))
    ]
    head = [words(key) for key in ("mix_source", "mix_weight", "mix_rows", "mix_read", "mix_share")]
    return table(head, rows, caption=words("mix"), right=(1, 2, 3, 4)) if rows else None
