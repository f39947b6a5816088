"""Write the commented recipe of `tunewright init`."""

from __future__ import annotations

import json
from typing import Any

PRETRAIN = """\
  - pretrain                # learn from scratch
  # - finetune:             # then adapt to other data:
  #     data: {source: other-data}
  #     tune: {freeze: backbone}
  #     model: {head: [{dense: 64, activation: relu}, {dense: auto}]}
"""
FINETUNE = """\
  - finetune                # adapt the pretrained backbone
"""
TUNE = """
# tune: {freeze: none}      # what is frozen: backbone, embeddings, a number or fraction of blocks; or adapter: lora; method: features
"""


def recipe_text(
    *,
    task: str,
    source: str,
    rows: int,
    target: str | None,
    reason: str,
    classes: str,
    inputs: list[str],
    name_columns: bool,
    model: str,
    train: dict[str, Any],
    metrics: list[str],
    by: str,
    stages: list[str],
) -> str:
    """Return a valid recipe, with a comment on each choice and its common alternatives."""
    columns = ""
    if name_columns:
        shown = json.dumps(inputs, ensure_ascii=False) if len(inputs) <= 12 else None
        given = (
            f"  input: {shown}\n"
            if shown
            else f"  # input: [...]            # all {len(inputs)} other columns, unless you name some\n"
        )
        named = json.dumps(target, ensure_ascii=False)
        columns = f"{given}  target: {named}            # chosen because {reason}{classes}\n" if target else given
    stopping = train.get("early_stopping")
    early = (
        f"  early_stopping: {json.dumps(stopping)}   # epochs without improvement on the validation split\n"
        if stopping
        else ""
    )
    pretrained = stages == ["finetune"]
    others = (
        "a catalog name, a folder, or a hub id such as bert-base-uncased"
        if pretrained
        else "or a named network: mlp, resnet20 … resnet110, resnet18, resnet34, resnet50"
    )
    warmup = f"  warmup: {train['warmup']}               # a fraction of all steps\n" if "warmup" in train else ""
    return f"""\
# Run it with: tunewright run RECIPE
# Every key that is omitted has a default; `recipe.resolved.yaml` in the run folder shows them all.

task: {task}

data:
  source: {json.dumps(source, ensure_ascii=False)}            # {rows:,} usable rows
{columns}  split: {{valid: 0.1, test: 0.1, by: {by}}}   # by: random, stratified, group or time (with column: NAME)

model: {model}
# model: {{backbone: …}}     # {others}
{TUNE if pretrained else ""}
train:
  epochs: {train.get("epochs", 5)}
  batch_size: {train.get("batch_size", 32)}
  optimizer: {train.get("optimizer", "adam")}           # sgd, adam, adamw, adagrad, rmsprop; with options: {{sgd: {{momentum: 0.9}}}}
  # lr: 1e-3                # `tunewright lr-find RECIPE` suggests one
  schedule: {train.get("schedule", "constant")}        # constant, linear, cosine, one_cycle, step
{warmup}  regularization: {{l1: 0, l2: 0, weight_decay: 0}}
{early}
eval:
  metrics: {json.dumps(metrics)}
  seeds: 1                  # 3 or more give an interval over trainings
  # target: {{{metrics[0]}: 0.9}}   # missed: exit code 1

stages:
{FINETUNE if pretrained else PRETRAIN}"""
