"""Words with their times as subtitles, SubRip (.srt) or WebVTT (.vtt)."""

from __future__ import annotations

from typing import Any

from tunewright.data.audio.transcript_text import stands_alone

# A pause of so many seconds, or so many letters, ends a line.
PAUSE, LINE = 0.6, 42


def subtitles(words: list[dict[str, Any]], form: str) -> str:
    """Return the file's text.

    Args:
        words: {"word", "start", "end"} each, in seconds.
        form: srt or vtt.
    """
    mark = "," if form == "srt" else "."
    parts = [] if form == "srt" else ["WEBVTT\n"]
    for number, line in enumerate(lines(words), start=1):
        times = f"{_clock(line['start'], mark)} --> {_clock(line['end'], mark)}"
        parts.append("\n".join([*([str(number)] if form == "srt" else []), times, line["text"], ""]))
    return "\n".join(parts)


def lines(words: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Words as lines: {"text", "start", "end"}; a line ends at a pause, or when it is long."""
    found: list[dict[str, Any]] = []
    for entry in words:
        word = entry["word"]
        if found and entry["start"] - found[-1]["end"] < PAUSE and len(found[-1]["text"]) + len(word) < LINE:
            gap = "" if stands_alone(word) and stands_alone(found[-1]["text"][-1]) else " "
            found[-1] = {**found[-1], "text": found[-1]["text"] + gap + word, "end": entry["end"]}
        else:
            found.append({"text": word, "start": entry["start"], "end": entry["end"]})
    return found


def _clock(seconds: float, mark: str) -> str:
    """HH:MM:SS,mmm"""
    thousandths = round(1000 * seconds)
    minutes, rest = divmod(thousandths, 60_000)
    return f"{minutes // 60:02d}:{minutes % 60:02d}:{rest // 1000:02d}{mark}{rest % 1000:03d}"
