"""Frozen matrices in 8 and 4 bits, and an optimiser of 8: what they save, what they cost in time, and what in accuracy.

    python benchmarks/few_bits.py

Accuracy: LoRA beside MiniLM on 6,000 of the Chinese reviews, on the same test rows. Memory and time: a decoder of 316 million parameters in
the Llama family's shape, with random weights that were saved in bfloat16, on 512 tokens a step; each way in a process of its own, whose
memory at its peak stands beside what `plan` says. Writes benchmarks/results/few_bits.{json,md}.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import torch
from environments import HERE, QUICK, RESULTS, WORK, processor

ROOT = HERE.parent
WAYS: dict[str, dict[str, Any]] = {
    "LoRA": {"tune": {"adapter": {"lora": {"r": 16, "alpha": 32}}}},
    "LoRA, int8": {"tune": {"adapter": {"lora": {"r": 16, "alpha": 32}}, "quantize": "int8"}},
    "LoRA, nf4": {"tune": {"adapter": {"lora": {"r": 16, "alpha": 32}}, "quantize": "nf4"}},
    "all, AdamW": {"tune": {"freeze": "none"}, "train": {"optimizer": "adamw"}},
    "all, AdamW in 8 bits": {"tune": {"freeze": "none"}, "train": {"optimizer": "adamw_8bit"}},
}
# glibc does not use again a hole of the very size that aligned memory needs, and grows; here what is freed goes back to the system at once.
GIVING_BACK = {"MALLOC_MMAP_THRESHOLD_": "1000000"}
PLAN = """
import json, sys
from pathlib import Path
from tunewright.console import silent
from tunewright.planning.plan import plan
(made,) = plan(Path(sys.argv[1]), [], console=silent())
print(json.dumps({"planned": made.process.middle, "parts": made.peak_parts, "planned_step": made.step.middle}))
"""
RUN = """
import json, sys
from pathlib import Path
from tunewright.console import silent
from tunewright.run_recipe import run
recipe = Path(sys.argv[1])
found = run(json.loads(recipe.read_text()), base=recipe.parent, runs=recipe.parent / "runs", console=silent())
done = found.stages["finetune"].summary["training"]
print(json.dumps({"process": done["peak_memory"], "step": done["seconds"] / done["steps"]}))
"""


def accuracies() -> dict[str, Any]:
    """Of each way with LoRA, and how it differs from LoRA on whole weights."""
    from tunewright import run
    from tunewright.evaluation.paired_comparison import compare_predictions
    from tunewright.pipeline.results.predictions import read_predictions

    example = ROOT / "examples" / "chinese-reviews" / "lora.yaml"
    found: dict[str, Any] = {}
    folders: dict[str, Path] = {}
    for name in WAYS:
        if not name.startswith("LoRA"):
            continue
        tune = WAYS[name]["tune"]
        overrides = [f"data.limit={300 if QUICK else 6000}", f"tune.quantize={tune.get('quantize', 'null')}"]
        result = run(example, overrides=overrides, runs=WORK / "few-bits" / name.replace(", ", "-"))
        stage = result.stages["finetune"]
        folders[name] = stage.folder
        found[name] = {
            "accuracy": stage.summary["evaluation"]["metrics"]["accuracy"],
            "loss": stage.summary["evaluation"]["metrics"].get("loss"),
            "rows": stage.summary["evaluation"]["rows"],
        }
        if name != "LoRA":
            difference = compare_predictions(
                read_predictions(folders[name]), read_predictions(folders["LoRA"]), "accuracy", resamples=1000
            )
            found[name]["against whole weights"] = difference.sentence("accuracy")
    return found


def asked(script: str, recipe: Path, told: dict[str, str]) -> dict[str, Any]:
    """What a script prints of a recipe, in a process of its own."""
    shutil.rmtree(recipe.parent / "runs", ignore_errors=True)
    words = [sys.executable, "-c", script, str(recipe)]
    done = subprocess.run(words, capture_output=True, text=True, env={**os.environ, **told})
    if done.returncode:
        raise SystemExit(done.stderr)
    return json.loads(done.stdout.splitlines()[-1])


def memories() -> dict[str, Any]:
    """Bytes of the process at its peak and seconds a step, as measured and as planned."""
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    found: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        draw = random.Random(0)
        words = [f"w{index}" for index in range(4000)]
        (place / "words.txt").write_text("\n".join(" ".join(draw.choices(words, k=16)) for _ in range(320)) + "\n")
        from tokenizers import Tokenizer, models, pre_tokenizers

        known = {word: index for index, word in enumerate(["<s>", "</s>", "<unk>", *words])}
        tokenizer = Tokenizer(models.WordLevel(known, unk_token="<unk>"))
        tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
        fast = PreTrainedTokenizerFast(
            tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>", unk_token="<unk>", pad_token="</s>"
        )
        torch.manual_seed(0)
        config = LlamaConfig(
            vocab_size=len(known),
            hidden_size=64 if QUICK else 1024,
            intermediate_size=176 if QUICK else 2816,
            num_hidden_layers=2 if QUICK else 24,
            num_attention_heads=16,
            num_key_value_heads=16,
            max_position_embeddings=256,
            bos_token_id=0,
            eos_token_id=1,
            pad_token_id=1,
        )
        model = LlamaForCausalLM(config).bfloat16()
        print(f"{sum(value.numel() for value in model.parameters()):,} parameters")
        model.save_pretrained(place / "base")
        fast.save_pretrained(place / "base")
        del model
        for name, way in WAYS.items():
            recipe = {
                "name": name.replace(", ", "-").replace(" ", "-"),
                "task": "language-modeling",
                "data": {"source": "words.txt", "split": {"valid": 0, "test": 0.05}},
                "model": {"backbone": "./base", "max_length": 128},
                "tune": way["tune"],
                "train": {"epochs": 1, "batch_size": 4, **way.get("train", {})},
                "eval": {"resamples": 100},
                "hardware": {"precision": "float32", "gradient_checkpointing": False},
                "stages": ["finetune"],
            }
            path = place / "recipe.yaml"
            path.write_text(json.dumps(recipe))
            found[name] = asked(PLAN, path, {}) | asked(RUN, path, {})
            found[name]["given back"] = asked(RUN, path, GIVING_BACK)["process"]
            print(name, found[name], flush=True)
    return found


def table(result: dict[str, Any]) -> list[str]:
    lines = [
        "# Few bits",
        "",
        f"316 million parameters, 512 tokens a step, {result['processor']}; MiB:",
        "",
        "| | weights | optimiser | the process at its peak | where what is freed goes back at once | plan | a step, s |",
        "|---|---:|---:|---:|---:|---:|---:|",
    ]
    for name, row in result["memory"].items():
        parts = row["parts"]
        lines.append(
            f"| {name} | {parts['weights'] / 2**20:,.0f} | {parts.get('optimiser', 0) / 2**20:,.0f} "
            f"| {row['process'] / 2**20:,.0f} | {row['given back'] / 2**20:,.0f} "
            f"| {row['planned'] / 2**20:,.0f} | {row['step']:.1f} |"
        )
    rows = result["accuracy"]["LoRA"]["rows"]
    lines += [
        "",
        f"MiniLM on Chinese reviews, one epoch, one seed, {rows} test rows:",
        "",
        "| | accuracy | |",
        "|---|---|---|",
    ]
    for name, row in result["accuracy"].items():
        value = row["accuracy"]
        said = f"{value['value']:.4f} [{value['low']:.4f}, {value['high']:.4f}]"
        lines.append(f"| {name} | {said} | {row.get('against whole weights', '')} |")
    return lines


def main() -> None:
    result = {"processor": processor(), "memory": memories(), "accuracy": accuracies()}
    lines = table(result)
    (RESULTS / "few_bits.json").write_text(json.dumps(result, indent=1) + "\n")
    (RESULTS / "few_bits.md").write_text("\n".join(lines) + "\n")
    print("\n".join(lines))


if __name__ == "__main__":
    main()
