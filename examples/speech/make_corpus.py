"""Write recordings of digits and commands in many made-up voices, with espeak-ng: examples/speech/corpus, the same each time.

    python examples/speech/make_corpus.py        # espeak-ng must be installed, such as by: apt install espeak-ng

train.csv has the voices to learn from, new.csv other voices, to adapt to and to test with. A voice is an accent, a variant, a
pitch and a rate; each recording has some noise.
"""

from __future__ import annotations

import csv
import random
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import soundfile

HERE = Path(__file__).parent / "corpus"
DIGITS = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"]
VERBS = ["turn on", "turn off", "open", "close", "start", "stop"]
THINGS = ["the light", "the door", "the window", "the music", "the heating", "the lamp"]
PLACES = ["in the kitchen", "in the bedroom", "in the hall", "upstairs", "please", ""]
ACCENTS = ["en-us", "en-gb", "en-gb-scotland", "en-gb-x-rp"]
VARIANTS = ["m1", "m2", "m3", "m4", "m5", "m6", "m7", "f1", "f2", "f3", "f4", "f5"]


def voices(draw: random.Random, count: int) -> list[tuple[str, int, int]]:
    """Voices, each another pair of accent and variant: (name, pitch, words a minute)."""
    pairs = [(accent, variant) for accent in ACCENTS for variant in VARIANTS]
    draw.shuffle(pairs)
    return [
        (f"{accent}+{variant}", draw.randrange(25, 75), draw.randrange(130, 190)) for accent, variant in pairs[:count]
    ]


def sentence(draw: random.Random) -> tuple[str, str]:
    """What is said, and which kind it is."""
    if draw.random() < 0.5:
        return " ".join(draw.choices(DIGITS, k=draw.randrange(3, 7))), "digits"
    return " ".join(part for part in (draw.choice(VERBS), draw.choice(THINGS), draw.choice(PLACES)) if part), "command"


def record(voice: tuple[str, int, int], text: str, noise: float, seed: int, path: Path) -> None:
    name, pitch, rate = voice
    command = ["espeak-ng", "-v", name, "-p", str(pitch), "-s", str(rate), "-w", str(path), text]
    subprocess.run(command, check=True)
    samples, sampled = soundfile.read(path)
    power = float(np.sqrt(np.mean(np.square(samples))))
    samples = samples + np.random.default_rng(seed).normal(0, noise * power, len(samples))
    soundfile.write(path, np.clip(samples, -1, 1), sampled, subtype="PCM_16")


def main() -> None:
    if shutil.which("espeak-ng") is None:
        sys.exit("espeak-ng is not installed; on Debian: apt install espeak-ng")
    draw = random.Random(0)
    chosen = voices(draw, 36)
    parts = {"train": (chosen[:24], 80), "new": (chosen[24:], 40)}
    (HERE / "wav").mkdir(parents=True, exist_ok=True)
    number = 0
    for part, (speakers, each) in parts.items():
        with (HERE / f"{part}.csv").open("w", newline="") as file:
            table = csv.writer(file)
            table.writerow(["audio", "text", "speaker", "kind"])
            for voice in speakers:
                for _ in range(each):
                    text, kind = sentence(draw)
                    path = HERE / "wav" / f"{number:05d}.wav"
                    record(voice, text, draw.uniform(0.0, 0.1), number, path)
                    table.writerow([f"wav/{path.name}", text, f"{voice[0]} {voice[1]} {voice[2]}", kind])
                    number += 1
    print(f"{number} recordings in {HERE}")


if __name__ == "__main__":
    main()
