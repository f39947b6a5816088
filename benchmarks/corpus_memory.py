"""A corpus larger than memory should be: how fast it is prepared and tokenised, and how much memory that takes.

    python benchmarks/corpus_memory.py [--gigabytes 1 0.25]

Texts are made of 50,000 words drawn by Zipf's law, as JSON lines. Each size goes through a fresh process with a cache of its own:
the data is prepared, a tokenizer of 8,000 pieces trained on its beginning, all texts made into tokens, and 200 batches drawn in
random order. Memory is the peak of what the process holds for itself (`RssAnon`), and of all that is mapped into it, files with it.
Writes benchmarks/results/corpus_memory.{json,md}.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
from environments import HERE, QUICK, RESULTS, processor

WORDS, A_TEXT = 50_000, 400


def write_corpus(path: Path, size: float) -> None:
    draw = np.random.default_rng(0)
    letters = np.array(list("abcdefghijklmnopqrstuvwxyz"))
    words = np.array(["".join(draw.choice(letters, int(n))) for n in draw.integers(2, 10, WORDS)])
    chances = 1 / np.arange(1, WORDS + 1)
    sums = np.cumsum(chances / chances.sum())
    written = 0
    with path.open("w") as file:
        while written < size:
            drawn = np.minimum(np.searchsorted(sums, draw.random((500, A_TEXT))), WORDS - 1)
            lines = "".join(json.dumps({"text": " ".join(row)}) + "\n" for row in words[drawn])
            written += file.write(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--gigabytes", type=float, nargs="+", default=[0.005] if QUICK else [0.25, 1.0])
    sizes = parser.parse_args().gigabytes
    found: list[dict[str, float]] = []
    for size in sizes:
        with tempfile.TemporaryDirectory(prefix="corpus-") as folder:
            corpus = Path(folder) / "corpus.jsonl"
            write_corpus(corpus, size * 1e9)
            command = [sys.executable, HERE / "peers" / "tunewright_corpus.py", corpus]
            environment = {**os.environ, "TUNEWRIGHT_CACHE": str(Path(folder) / "cache")}
            done = subprocess.run(command, capture_output=True, text=True, env=environment)
            if done.returncode:
                sys.exit(done.stderr[-3000:])
            found.append({"gigabytes": size, **json.loads(done.stdout.strip().splitlines()[-1])})
            print(found[-1], flush=True)
    result = {
        "date": datetime.date.today().isoformat(),
        "processor": processor(),
        "cores": os.cpu_count(),
        "corpora": found,
    }
    lines = [
        "# A corpus prepared, tokenised and shuffled",
        "",
        f"{result['date']}, {result['processor']}, {result['cores']} cores. Memory at the peak, MiB: of the process's own, "
        "and with the files that are mapped into it.",
        "",
        "| GB of text | prepared, s | tokens, million | tokenised, s | MB/s | a batch, ms | own memory | with files |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for entry in found:
        rate = entry["gigabytes"] * 1e3 / entry["tokenise_seconds"]
        lines.append(
            f"| {entry['gigabytes']:g} | {entry['prepare_seconds']:.0f} | {entry['tokens'] / 1e6:,.0f} "
            f"| {entry['tokenise_seconds']:.0f} | {rate:.1f} | {entry['batch_milliseconds']:.1f} "
            f"| {entry['own_mebibytes']:,.0f} | {entry['all_mebibytes']:,.0f} |"
        )
    (RESULTS / "corpus_memory.json").write_text(json.dumps(result, indent=2) + "\n")
    (RESULTS / "corpus_memory.md").write_text("\n".join(lines) + "\n")
    print("\n".join(lines))


if __name__ == "__main__":
    main()
