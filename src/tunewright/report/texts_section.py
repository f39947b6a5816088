"""What a stage learned from: texts, how many tokens, by which tokenizer, from which sources; or recordings."""

from __future__ import annotations

from tunewright.report import numbers
from tunewright.report.components import as_found, facts, number, table
from tunewright.report.html import Html, tag
from tunewright.report.reading import Stage
from tunewright.report.translations import Words
from tunewright.runs.summary.data import MixedSource, RecordingSummary, TextSummary


def texts(words: Words, stage: Stage) -> list[Html | None]:
    """The figures; of a mix also what an epoch reads of each source."""
    match stage.summary.texts:
        case TextSummary() as found:
            return _texts(words, found)
        case RecordingSummary() as found:
            return _recordings(words, found)
        case None:
            return []


def _texts(words: Words, found: TextSummary) -> list[Html | None]:
    counts = [
        (words("texts_tokens"), found.tokens),
        (words("texts_trained"), found.trained),
        (words("texts_examples"), found.examples),
        (words("texts_max_length"), found.max_length),
        (words("texts_cut"), found.cut),
        (words("texts_empty"), found.empty or None),
    ]
    counted: list[tuple[str, object]] = [(name, numbers.count(count)) for name, count in counts if count is not None]
    if (tokenizer := found.tokenizer) is not None:
        longest = [tag("code", repr(piece)) for piece in tokenizer.longest if piece.strip()]
        counted += [
            (words("vocabulary"), numbers.count(tokenizer.vocabulary)),
            (words("bytes_per_token"), numbers.significant(tokenizer.bytes_per_token, 3)),
            (words("unknown_rate"), f"{tokenizer.unknown_rate:.2%}"),
            (words("longest"), [[" ", piece] for piece in longest] or None),
        ]
    return [tag("h3", words("texts")), facts(counted, short=True), _mix(words, found.mix or [])]


def _recordings(words: Words, found: RecordingSummary) -> list[Html | None]:
    counted = [
        (words("recordings_examples"), numbers.count(found.examples)),
        (words("recordings_letters"), numbers.count(found.letters)),
        (words("recordings_cut"), numbers.count(found.cut)),
        (words("recordings_seconds"), numbers.duration(found.seconds)),
    ]
    return [tag("h3", words("recordings")), facts(counted, short=True)]


def _mix(words: Words, sources: list[MixedSource]) -> Html | None:
    rows = [
        (
            as_found(words, entry.source),
            number(numbers.significant(entry.weight)),
            number(numbers.count(entry.rows)),
            number(numbers.count(entry.read)),
            number(f"{entry.share:.0%}"),
        )
        for entry in sources
    ]
    head = [words(key) for key in ("mix_source", "mix_weight", "mix_rows", "mix_read", "mix_share")]
    return table(head, rows, caption=words("mix"), right=(1, 2, 3, 4)) if rows else None
