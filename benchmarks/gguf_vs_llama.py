"""A GGUF file of a language model of ours in llama.cpp: the same tokens of each text, and the same greedy continuation.

    python benchmarks/gguf_vs_llama.py MODEL TEXTS.jsonl

llama-cpp-python has an environment of its own, and is compiled there the first time. MODEL stands in its run; TEXTS has a text or a
conversation in each line.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path

from environments import HERE, install

from tunewright import load_model
from tunewright.models.generate import generate
from tunewright.stages.console import silent
from tunewright.stages.export import export

TEXTS, WRITTEN = 40, 24
THEIRS = """
import json, sys
from llama_cpp import Llama
model = Llama(sys.argv[1], n_ctx=256, verbose=False, seed=0)
found = []
for text in json.loads(open(sys.argv[2]).read()):
    tokens = model.tokenize(text.encode(), add_bos=False, special=True)
    new = []
    model.reset()
    for token in model.generate(tokens, temp=0.0, top_k=1, repeat_penalty=1.0):
        if len(new) == int(sys.argv[3]) or token == model.token_eos():
            break
        new.append(token)
    found.append([tokens, new])
import llama_cpp
print(json.dumps({"version": llama_cpp.__version__, "found": found}))
"""


def main() -> None:
    folder, data = Path(sys.argv[1]), Path(sys.argv[2])
    model = load_model(folder)
    encoder = model.preprocessor.inputs
    tokenizer = encoder.tokenizer
    texts: list[str] = []
    for line in data.read_text().splitlines()[:TEXTS]:
        entry = json.loads(line)
        turns = entry["messages"][:-1] if "messages" in entry else None
        texts.append(
            tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=True)
            if turns
            else entry["text"][:60]
        )
    python = install("llama", [["llama-cpp-python"]])
    with tempfile.TemporaryDirectory() as place:
        export(folder, "gguf", Path(place), screen=silent())
        (Path(place) / "texts.json").write_text(json.dumps(texts))
        words = [python, "-c", THEIRS, f"{place}/model.gguf", f"{place}/texts.json", str(WRITTEN)]
        theirs = json.loads(subprocess.run(words, capture_output=True, text=True, check=True).stdout.splitlines()[-1])
    end = model.network.core.config.eos_token_id
    same_tokens = same_words = 0
    for text, (tokens, new) in zip(texts, theirs["found"], strict=True):
        ids = tokenizer(text, add_special_tokens=False)["input_ids"]
        ours = list(
            generate(
                model.network, ids, end={end} if isinstance(end, int) else set(end), most=WRITTEN, context=encoder.limit
            )
        )
        same_tokens += ids == tokens
        same_words += ours == new
    found = {
        "llama_cpp_python": theirs["version"],
        "texts": len(texts),
        "same_tokens": same_tokens,
        "same_continuation": same_words,
    }
    (HERE / "results" / "gguf_vs_llama.json").write_text(json.dumps(found, indent=1) + "\n")
    print(found)


if __name__ == "__main__":
    main()
