"""Write recordings of digits, commands and sentences in many synthetic voices, English and Mandarin, with espeak-ng,
to examples/speech/corpus; the corpus is the same each time.

    python examples/speech/make_corpus.py        # espeak-ng must be installed, such as by: apt install espeak-ng

train.csv has the training voices, new.csv other voices, for fine-tuning and testing. A voice is an accent, a variant, a
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
WHO = ["the old man", "a young woman", "my brother", "the teacher", "our neighbour", "the little girl"]
DID = ["bought", "found", "lost", "painted", "carried", "sold", "washed"]
WHAT = ["a red bicycle", "two green apples", "an old book", "a heavy chair", "some fresh bread", "the blue boat"]
WHEN = ["yesterday", "this morning", "in the garden", "near the river", "at the market", "last winter"]
HAN_DIGITS = list("零一二三四五六七八九")
HAN_VERBS, HAN_PLACES = ["打开", "关上", "检查"], ["卧室的", "厨房的", "客厅的", ""]
HAN_THINGS = ["灯", "门", "窗户", "电视", "空调", "音乐"]
ACCENTS = ["en-us", "en-gb", "en-gb-scotland", "en-gb-x-rp"]
MANDARIN = ["cmn-latn-pinyin"]
VARIANTS = ["m1", "m2", "m3", "m4", "m5", "m6", "m7", "f1", "f2", "f3", "f4", "f5"]
# Recordings per voice, English voices and Mandarin voices of each file.
PARTS = {"train": (80, 24, 8), "new": (40, 12, 4)}


def voices(draw: random.Random, accents: list[str]) -> list[tuple[str, int, int]]:
    """Return voices with distinct pairs of accent and variant: (name, pitch, words per minute)."""
    pairs = [(accent, variant) for accent in accents for variant in VARIANTS]
    draw.shuffle(pairs)
    return [(f"{accent}+{variant}", draw.randrange(25, 75), draw.randrange(130, 190)) for accent, variant in pairs]


def english(draw: random.Random) -> tuple[str, str]:
    """Return an English text and its kind."""
    kind = draw.choice(["digits", "command", "sentence"])
    if kind == "digits":
        return " ".join(draw.choices(DIGITS, k=draw.randrange(3, 7))), kind
    parts = [VERBS, THINGS, PLACES] if kind == "command" else [WHO, DID, WHAT, WHEN]
    return " ".join(part for part in map(draw.choice, parts) if part), kind


def mandarin(draw: random.Random) -> tuple[str, str]:
    """Return a Mandarin text and its kind."""
    if draw.random() < 0.5:
        return "".join(draw.choices(HAN_DIGITS, k=draw.randrange(3, 7))), "Mandarin digits"
    return "".join(map(draw.choice, [HAN_VERBS, HAN_PLACES, HAN_THINGS])), "Mandarin command"


def record(voice: tuple[str, int, int], text: str, noise: float, seed: int, path: Path) -> None:
    """Synthesize a text and add white noise, whose level is relative to the signal."""
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
    speakers = [(english, voices(draw, ACCENTS)), (mandarin, voices(draw, MANDARIN))]
    (HERE / "wav").mkdir(parents=True, exist_ok=True)
    number = 0
    for part, (each, *counts) in PARTS.items():
        with (HERE / f"{part}.csv").open("w", newline="", encoding="utf-8") as file:
            table = csv.writer(file)
            table.writerow(["audio", "text", "speaker", "kind"])
            for (say, left), count in zip(speakers, counts, strict=True):
                for voice in left[:count]:
                    for _ in range(each):
                        text, kind = say(draw)
                        path = HERE / "wav" / f"{number:05d}.wav"
                        record(voice, text, draw.uniform(0.0, 0.1), number, path)
                        table.writerow([f"wav/{path.name}", text, f"{voice[0]} {voice[1]} {voice[2]}", kind])
                        number += 1
                del left[:count]
    print(f"{number} recordings in {HERE}")


if __name__ == "__main__":
    main()
