"""Tunewright: prepare and tokenise a corpus, draw batches from it, and watch the memory meanwhile. CORPUS"""

import json
import sys
import threading
import time
from pathlib import Path

from tunewright.data.batches.sampler import Batches
from tunewright.data.prepare.prepare import prepare
from tunewright.data.text.tokenizer import WRITER, trained_tokenizer
from tunewright.recipe.schema import Data, Split
from tunewright.tasks.language_model.encoder import CausalEncoder
from tunewright.tasks.text.encoder import load_tokenizer

CONTEXT, BATCH, DRAWN = 512, 16, 200
peaks = {"RssAnon": 0, "VmRSS": 0}


def watch() -> None:
    while True:
        for line in Path("/proc/self/status").read_text().splitlines():
            name, _, value = line.partition(":")
            if name in peaks:
                peaks[name] = max(peaks[name], int(value.split()[0]))
        time.sleep(0.05)


threading.Thread(target=watch, daemon=True).start()
started = time.perf_counter()
data = Data(source=sys.argv[1], labelled=False, input=["text"], split=Split(valid=0.001, test=0.001))
prepared = prepare(data, seed=0, target_kind=None, base=Path("."))
prepare_seconds = time.perf_counter() - started
folder = trained_tokenizer(prepared, ["text"], {"bpe": {"vocabulary": 8000}}, CONTEXT, WRITER)
encoder = CausalEncoder(columns=["text"], max_length=CONTEXT, limit=CONTEXT, tokenizer=load_tokenizer(folder))
started = time.perf_counter()
examples = encoder.stored(prepared, "train")
tokenise_seconds = time.perf_counter() - started
started = time.perf_counter()
steps = Batches(examples=examples, batch_size=BATCH, seed=0).steps(0)
drawn = sum(int(step[0].named["input_ids"].shape[0]) for step, _ in zip(steps, range(DRAWN), strict=False))
batch_milliseconds = 1e3 * (time.perf_counter() - started) / DRAWN
print(
    json.dumps(
        {
            "prepare_seconds": prepare_seconds,
            "tokenise_seconds": tokenise_seconds,
            "batch_milliseconds": batch_milliseconds,
            "tokens": len(examples.tokens),
            "rows": drawn,
            "own_mebibytes": peaks["RssAnon"] / 1024,
            "all_mebibytes": peaks["VmRSS"] / 1024,
        }
    )
)
