"""Tunewright: the recipe of examples/tiny-char-gpt, with checkpoints, samples and the report. DATA RECIPE SEED OVERRIDES"""

import json
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from characters import Characters, validation_loss

import tunewright
from tunewright import run_recipe as run
from tunewright.console import silent
from tunewright.pipeline.train import train_stage as training

data, recipe, seed = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])

learn, train = run.learn_stage, training.train
times: dict[str, list[float]] = {"prepared": [], "fit": []}


def learning(*arguments: Any, **options: Any) -> None:
    times["prepared"].append(time.perf_counter())
    learn(*arguments, **options)


def looping(*arguments: Any, **options: Any) -> Any:
    times["prepared"].append(time.perf_counter())
    times["fit"].append(time.perf_counter())
    state = train(*arguments, **options)
    times["fit"].append(time.perf_counter())
    return state


run.learn_stage, training.train = learning, looping
result = tunewright.run(recipe, overrides=[f"seed={seed}", *sys.argv[4:]], runs=tempfile.mkdtemp(), console=silent())
(stage,) = result.stages.values()
done = stage.summary["training"]
model = tunewright.load_model(stage.folder / "model")
tokenizer = model.preprocessor.inputs.tokenizer
known = set(Characters.of(data).names)
text = "".join(character for character in (data / "valid.txt").read_text(encoding="utf-8") if character in known)
ids = tokenizer(text, return_tensors="pt", verbose=False)["input_ids"][0]
loss = validation_loss(lambda part: model.network({"input_ids": part}), ids, 64)
print(
    json.dumps(
        {
            **times,
            "tokens": stage.summary["texts"]["tokens"],
            "loss": loss,
            "steps": done["steps"],
        }
    )
)
