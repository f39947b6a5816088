"""What pocketsphinx hears: files.json (names of 16 kHz files) to texts, with its own language model or a given one.

python pocketsphinx_hear.py files.json out.json [words.arpa]
"""

from __future__ import annotations

import json
import sys
import time
import wave
from pathlib import Path

from pocketsphinx import Decoder

files = json.loads(Path(sys.argv[1]).read_text())
decoder = Decoder(lm=sys.argv[3]) if len(sys.argv) > 3 else Decoder()
found, began = [], time.perf_counter()
for name in files:
    with wave.open(name) as sound:
        samples = sound.readframes(sound.getnframes())
    decoder.start_utt()
    decoder.process_raw(samples, full_utt=True)
    decoder.end_utt()
    heard = decoder.hyp()
    found.append(heard.hypstr if heard is not None else "")
Path(sys.argv[2]).write_text(json.dumps({"texts": found, "seconds": time.perf_counter() - began}))
