"""Read a recording that a person asks about."""

from __future__ import annotations

from io import BytesIO
from pathlib import Path

import pyarrow as pa

from tunewright.data.source import ROW
from tunewright.data.sources.speech import AUDIO
from tunewright.errors import DataError
from tunewright.files import regular
from tunewright.tasks.base.request import InputChunk
from tunewright.tasks.speech.encoder import SpeechEncoder

SOUNDS = {".wav", ".flac", ".ogg", ".mp3", ".opus"}


def sound_piece(name: str, inputs: SpeechEncoder, content: bytes | None = None) -> InputChunk:
    """One recording by its path, or by its content."""
    from tunewright.data.audio.decode import read_audio

    try:
        samples = read_audio(regular(Path(name)) if content is None else BytesIO(content))
    except (OSError, ValueError) as error:
        raise DataError(
            f"the recording cannot be read: {error}", file=name, expected="WAV, FLAC, OGG or MP3", fix="check the file"
        ) from None
    table = pa.table({AUDIO: pa.array([samples.tobytes()], pa.binary()), ROW: pa.array([1], pa.int64())})
    return InputChunk(table=table, names=[{"file": name}], inputs=inputs)
