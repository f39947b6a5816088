"""Tunewright: the recipe of examples/tiny-char-gpt, with checkpoints, samples and the report. DATA RECIPE SEED"""

import json
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from characters import Characters, validation_loss

import tunewright
from tunewright.stages import run
from tunewright.stages.console import silent

data, recipe, seed = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])

learn, times = run.learn_stage, list[float]()


def timed(*arguments: Any) -> None:
    times.append(time.perf_counter())
    learn(*arguments)
    times.append(time.perf_counter())


run.learn_stage = timed
result = tunewright.run(recipe, overrides=[f"seed={seed}"], runs=tempfile.mkdtemp(), screen=silent())
(stage,) = result.stages.values()
training = stage.summary["training"]
model = tunewright.load_model(stage.folder / "model")
tokenizer = model.preprocessor.inputs.tokenizer
known = set(Characters.of(data).names)
text = "".join(character for character in (data / "valid.txt").read_text(encoding="utf-8") if character in known)
ids = tokenizer(text, return_tensors="pt", verbose=False)["input_ids"][0]
loss = validation_loss(lambda part: model.network({"input_ids": part}), ids, 64)
print(
    json.dumps(
        {
            "fit": times,
            "tokens": stage.summary["texts"]["tokens"],
            "loss": loss,
            "steps": training["steps"],
        }
    )
)
