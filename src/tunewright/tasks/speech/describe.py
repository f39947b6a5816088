"""Describe the training recordings."""

from __future__ import annotations

from tunewright.console import Console
from tunewright.data.batches.batch import Examples
from tunewright.data.prepared import Prepared
from tunewright.runs.summary.data import RecordingSummary
from tunewright.tasks.speech.encoder import SpeechEncoder, SpeechExamples


def describe_recordings(
    encoder: SpeechEncoder, prepared: Prepared, train: Examples, console: Console
) -> RecordingSummary:
    """Print and return how many recordings, hours and letters there are, and how many recordings are skipped."""
    assert isinstance(train, SpeechExamples)
    console.info(
        f"{len(train):,} recordings, {train.seconds / 3600:.2f} hours; {len(encoder.letters)} characters: "
        + "".join(encoder.letters)
    )
    if train.impossible:
        console.warning(f"{train.impossible:,} recordings have no transcript or are too short for it, and are skipped")
    return RecordingSummary(
        examples=len(train), seconds=train.seconds, letters=len(encoder.letters), cut=train.impossible
    )
