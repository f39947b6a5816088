"""Read a recording that a person asks about."""

from __future__ import annotations

from io import BytesIO
from pathlib import Path

import pyarrow as pa

from tunewright.data.audio.decode import read_audio, sound_size
from tunewright.data.source import ROW
from tunewright.data.sources.speech import AUDIO
from tunewright.errors import DataError
from tunewright.files import regular
from tunewright.tasks.base.request import InputChunk, Request
from tunewright.tasks.speech.encoder import SpeechEncoder


class RecordingRequest(Request[SpeechEncoder]):
    """Recordings by their files or contents."""

    kind = "sound"
    files = frozenset({".wav", ".flac", ".ogg", ".mp3", ".opus"})
    media_types = (
        "audio/wav", "audio/x-wav", "audio/wave", "audio/vnd.wave", "audio/flac", "audio/x-flac", "audio/ogg", "video/ogg",
        "audio/mpeg", "audio/mp3",
    )  # fmt: skip
    formats = "WAV, FLAC, OGG or MP3"
    data_format = "speech"

    def file(self, path: str) -> InputChunk:
        return self._chunk(path, None)

    def content(self, content: bytes) -> InputChunk:
        return self._chunk("the recording", content)

    def duration(self, content: bytes) -> tuple[float, int]:
        return sound_size(BytesIO(content))

    def _chunk(self, name: str, content: bytes | None) -> InputChunk:
        try:
            samples = read_audio(regular(Path(name)) if content is None else BytesIO(content))
        except (OSError, ValueError) as error:
            raise DataError(
                f"the recording cannot be read: {error}", file=name, expected=self.formats, fix="check the file"
            ) from None
        table = pa.table({AUDIO: pa.array([samples.tobytes()], pa.binary()), ROW: pa.array([1], pa.int64())})
        return InputChunk(table=table, names=[{"file": name}], inputs=self.encoder)
