"""Write the commented recipe of `tunewright init`."""

from __future__ import annotations

import json
from dataclasses import dataclass
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


@dataclass(frozen=True, kw_only=True)
class TemplateData:
    """Hold what a recipe says of its data."""

    source: str
    rows: int
    target: str | None
    reason: str
    """Why this column is the target."""
    classes: str
    """What is said of the classes of the target."""
    inputs: list[str]
    name_columns: bool
    """Whether the recipe names its columns."""
    by: str
    """How the rows are split."""


def recipe_text(
    data: TemplateData, *, task: str, model: str, train: dict[str, Any], metrics: list[str], stages: list[str]
) -> str:
    """Return a valid recipe, with a comment on each choice and its common alternatives."""
    pretrained = stages == ["finetune"]
    others = (
        "a catalog name, a folder, or a hub id such as bert-base-uncased"
        if pretrained
        else "or a named network: mlp, resnet20 … resnet110, resnet18, resnet34, resnet50"
    )
    return f"""\
# Run it with: tunewright run RECIPE
# Every key that is omitted has a default; `recipe.resolved.yaml` in the run folder shows them all.

task: {task}

{_data_block(data)}
model: {model}
# model: {{backbone: …}}     # {others}
{TUNE if pretrained else ""}
{_train_block(train)}
eval:
  metrics: {json.dumps(metrics)}
  seeds: 1                  # 3 or more give an interval over trainings
  # target: {{{metrics[0]}: 0.9}}   # missed: exit code 1

stages:
{FINETUNE if pretrained else PRETRAIN}"""


def _data_block(data: TemplateData) -> str:
    columns = ""
    if data.name_columns:
        shown = json.dumps(data.inputs, ensure_ascii=False) if len(data.inputs) <= 12 else None
        given = (
            f"  input: {shown}\n"
            if shown
            else f"  # input: [...]            # all {len(data.inputs)} other columns, unless you name some\n"
        )
        named = json.dumps(data.target, ensure_ascii=False)
        target = f"  target: {named}            # chosen because {data.reason}{data.classes}\n"
        columns = given + target if data.target else given
    return f"""\
data:
  source: {json.dumps(data.source, ensure_ascii=False)}            # {data.rows:,} usable rows
{columns}  split: {{valid: 0.1, test: 0.1, by: {data.by}}}   # by: random, stratified, group or time (with column: NAME)
"""


def _train_block(train: dict[str, Any]) -> str:
    stopping = train.get("early_stopping")
    early = (
        f"  early_stopping: {json.dumps(stopping)}   # epochs without improvement on the validation split\n"
        if stopping
        else ""
    )
    warmup = f"  warmup: {train['warmup']}               # a fraction of all steps\n" if "warmup" in train else ""
    return f"""\
train:
  epochs: {train.get("epochs", 5)}
  batch_size: {train.get("batch_size", 32)}
  optimizer: {train.get("optimizer", "adam")}           # sgd, adam, adamw, adagrad, rmsprop; with options: {{sgd: {{momentum: 0.9}}}}
  # lr: 1e-3                # `tunewright lr-find RECIPE` suggests one
  schedule: {train.get("schedule", "constant")}        # constant, linear, cosine, one_cycle, step
{warmup}  regularization: {{l1: 0, l2: 0, weight_decay: 0}}
{early}"""
