"""Run `tunewright init TASK --data PATH`: inspect the data and write a commented recipe for it."""

from __future__ import annotations

import json
from pathlib import Path

from tunewright.data.manifest import Manifest
from tunewright.data.prepare.prepare import prepare
from tunewright.data.sources.sample_sets import SAMPLE_SETS
from tunewright.errors import UserError
from tunewright.files import write_atomic
from tunewright.recipe.schema import Data, Split
from tunewright.recipe.template import TemplateData, recipe_text
from tunewright.tasks.base.task import Task
from tunewright.tasks.registry import TASKS, get_task

# A placeholder for the trained model that a task starts from.
A_MODEL = "runs/NAME/finetune/model"


def write_recipe(task: str, source: str | None, out: Path) -> str:
    """Write the recipe, and return a message about it.

    Args:
        task: a task's name; "list" lists them and writes nothing.

    Raises:
        UserError: there is no such task, the data cannot be used, or the file already exists.
    """
    if task == "list":
        return "\n".join(f"{name:<24} {known.summary}" for name, known in TASKS.items())
    chosen = get_task(task)
    if out.exists():
        raise UserError(
            "the file already exists, and is not overwritten",
            file=out,
            expected="a new file",
            fix="choose another --out",
        )
    source = source or _sample_set(chosen)
    usual = chosen.defaults.get("data", {})
    data = Data(
        source=source,
        split=Split(**usual.get("split", {})),
        labelled=chosen.target is not None,
        format=usual.get("format"),
    )
    prepared = prepare(data, seed=0, target_kind=chosen.target_kind, base=Path("."))
    manifest = prepared.manifest
    # A path in a recipe is relative to the recipe's folder.
    known = source in SAMPLE_SETS and not Path(source).exists()
    path = source if known or source.startswith("hub:") else _from(out, source)
    classes = f", {len(manifest.classes)} classes" if manifest.classes else ""
    text = recipe_text(
        TemplateData(
            source=path,
            rows=manifest.used,
            target=manifest.target,
            reason=manifest.target_reason,
            classes=classes,
            inputs=_inputs(manifest),
            # The columns of conversations and interactions are found by their names.
            name_columns=not chosen.inputs.finds_columns
            and manifest.format not in ("images", "idx", "npz", "sample", "text"),
            by=data.split.by or "random",
        ),
        task=task,
        model=json.dumps(
            {"weights": A_MODEL} if chosen.network.needs_trained_model else chosen.network.default, ensure_ascii=False
        ),
        train=chosen.defaults.get("train", {}),
        metrics=list(chosen.metrics),
        stages=chosen.defaults.get("stages", ["pretrain"]),
    )
    write_atomic(out, text)
    target = f", target {manifest.target!r} ({manifest.target_reason})" if manifest.target else ""
    then = f"in it, replace {A_MODEL} by the model's folder\n" if chosen.network.needs_trained_model else ""
    return f"{out}: {manifest.used:,} rows{target}\n{then}next: tunewright data check {out}, then tunewright run {out}"


def _sample_set(task: Task) -> str:
    """Return the name of a sample set for a task; one with labels also serves a task of the same inputs without a target.

    Raises:
        UserError: there is none.
    """
    for name, sample in SAMPLE_SETS.items():
        if sample.task == task.name:
            return name
    for name, sample in SAMPLE_SETS.items():
        labelled = get_task(sample.task)
        if task.target is None and labelled.target is not None and labelled.inputs.name == task.inputs.name:
            return name
    raise UserError(
        f"there is no sample set for {task.name}",
        place="--data",
        expected="your data: a file, a folder, or hub:owner/name",
        fix=f"tunewright init {task.name} --data PATH",
    )


def _inputs(manifest: Manifest) -> list[str]:
    """Return the input columns to name: for unlabelled texts, the first column of texts."""
    texts = [column.name for column in manifest.columns if column.kind == "text" and column.name in manifest.input]
    return texts[:1] if manifest.target is None and texts else manifest.input


def _from(recipe: Path, source: str) -> str:
    import os

    return os.path.relpath(Path(source).resolve(), recipe.resolve().parent)
