"""`tunewright predict MODEL DATA`: a saved model answers."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from tunewright.data.manifest import Rejects
from tunewright.errors import DataError
from tunewright.inference.model import load_model, predictions, skipped_lines
from tunewright.inference.subtitles import subtitles


def print_predictions(folder: Path, data: str, form: str = "json") -> None:
    """Print one JSON object a line, chunk by chunk, or subtitles; what was skipped is printed on standard error.

    Raises:
        DataError: subtitles are wanted, and it is not one recording.
    """
    rejects = Rejects()
    model = load_model(folder)
    if form != "json":
        entries = [entry for chunk in predictions(model, data, rejects) for entry in chunk]
        if len(entries) != 1 or "words" not in entries[0]:
            raise DataError(
                "subtitles belong to one recording",
                file=data,
                found=f"{len(entries):,} rows" if len(entries) != 1 else model.preprocessor.task.name,
                expected="a sound file, and a model of speech",
                fix="leave --as out",
            )
        sys.stdout.write(subtitles(entries[0]["words"], form))
        return
    for entries in predictions(model, data, rejects):
        for entry in entries:
            sys.stdout.write(_line(entry))
        sys.stdout.flush()
    for line in skipped_lines(rejects):
        sys.stderr.write(f"note: {line}\n")


def _line(entry: dict[str, Any]) -> str:
    """Return a prediction as a line of JSON, which has no NaN and no infinity. Raises DataError."""
    try:
        return json.dumps(entry, ensure_ascii=False, allow_nan=False) + "\n"
    except ValueError:
        place = next((f"{name} {entry[name]}" for name in ("row", "file") if name in entry), None)
        raise DataError("the prediction holds a number that is not finite", place=place, fix="remove the row") from None
