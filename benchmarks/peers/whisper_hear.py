"""What Whisper hears: files.json (names of 16 kHz files) to texts, by faster-whisper in int8 on the processor.

python whisper_hear.py files.json out.json MODEL_FOLDER
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

from faster_whisper import WhisperModel

files = json.loads(Path(sys.argv[1]).read_text())
model = WhisperModel(sys.argv[3], device="cpu", compute_type="int8", cpu_threads=2, local_files_only=True)
found, began = [], time.perf_counter()
for name in files:
    parts, _ = model.transcribe(name, language="en", beam_size=5, condition_on_previous_text=False)
    found.append(" ".join(part.text for part in parts))
Path(sys.argv[2]).write_text(json.dumps({"texts": found, "seconds": time.perf_counter() - began}))
