"""Fine-tune a tiny BERT, and run the code of its model card."""

from __future__ import annotations

import runpy
import warnings
from pathlib import Path
from typing import Any

from tunewright.console import silent
from tunewright.run_recipe import RunResult, run


def fine_tune(place: Path, name: str, **recipe: Any) -> RunResult:
    """Fine-tune the backbone `tiny` on `texts.jsonl`, both in the folder; `recipe` replaces keys of the recipe."""
    plain = {
        "name": name,
        "task": "text-classification",
        "data": {"source": "texts.jsonl"},
        "model": {"backbone": "tiny"},
        "tune": {"freeze": 2},
        "train": {"epochs": 2},
        "eval": {"resamples": 100},
        "hardware": {"precision": "float32"},
    }
    return run({**plain, **recipe}, base=place, runs=place / "runs", console=silent())


def run_card_code(card: str, folder: Path) -> None:
    """Run every Python block of a model card on the model in the folder; each must define `model`."""
    blocks = [part.split("```")[0] for part in card.split("```python\n")[1:]]
    assert blocks
    for index, block in enumerate(blocks):
        path = folder.parent / f"block-{index}.py"
        path.write_text(block.replace("path/to/this/folder", str(folder)))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # of peft about the library that it uses
            assert "model" in runpy.run_path(str(path))
