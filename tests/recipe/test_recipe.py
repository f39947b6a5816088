"""The recipe: what loads, what defaults fill in, how overrides and stages are laid over it."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from repository import REPOSITORY
from tunewright.errors import RecipeError
from tunewright.recipe.loading import load_recipe, recipe_from_dict
from tunewright.recipe.output import json_schema, resolved_yaml
from tunewright.recipe.schema import Recipe
from tunewright.recipe.stages import stage_recipes
from tunewright.recipe.yaml_text import read_yaml
from tunewright.tasks.registry import task_defaults

MINIMAL = {"task": "image-classification", "data": {"source": "mnist"}}


def load(text: str, tmp_path: Path, *overrides: str) -> Recipe:
    path = tmp_path / "recipe.yaml"
    path.write_text(text, encoding="utf-8")
    return load_recipe(path, overrides, defaults=task_defaults)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e-3", 1e-3),
        ("1E5", 1e5),
        ("2.5e-5", 2.5e-5),
        ("-.5", -0.5),
        ("3", 3),
        ("007", 7.0),
        ("yes", "yes"),
        ("off", "off"),
        ("NO", "NO"),
        ("true", True),
        ("null", None),
        ("~", None),
        ("2026-01-01", "2026-01-01"),
        ("1:30", "1:30"),
        ("1_000", "1_000"),
        ("0o17", "0o17"),
        ("'3'", "3"),
        ("中文", "中文"),
    ],
)
def test_scalars_mean_what_a_person_would_think(text: str, value: object) -> None:
    read, _ = read_yaml(f"key: {text}")
    assert read["key"] == value
    assert type(read["key"]) is type(value)


def test_lines_are_kept() -> None:
    _, lines = read_yaml("a: 1\nb:\n  c: [1,\n    2]\n")
    assert (lines[("a",)], lines[("b", "c")], lines[("b", "c", 1)]) == (1, 3, 4)


def test_task_defaults_lie_under_what_is_written(tmp_path: Path) -> None:
    recipe = load("task: tabular-classification\ndata: {source: wine}\ntrain: {epochs: 3}", tmp_path)
    assert recipe.train.epochs == 3
    assert recipe.train.early_stopping is not None
    assert recipe.data.split.by == "stratified"


def test_overrides(tmp_path: Path) -> None:
    text = (REPOSITORY / "examples" / "mnist" / "recipe.yaml").read_text()
    recipe = load(
        text, tmp_path, "train.lr=1e-4", "train.optimizer={sgd: {momentum: 0.9}}", "stages.1.finetune.train.epochs=3"
    )
    assert recipe.train.lr == 1e-4
    assert recipe.train.optimizer == {"sgd": {"momentum": 0.9}}
    assert stage_recipes(recipe)[1].recipe.train.epochs == 3


def test_a_stage_with_its_own_source_starts_with_fresh_data(tmp_path: Path) -> None:
    recipe = load(
        "task: image-classification\ndata: {source: mnist, limit: 100, split: {valid: 0}}\n"
        "stages: [pretrain, {finetune: {data: {source: digits}}}, {finetune: {train: {epochs: 1}}}]",
        tmp_path,
    )
    first, second, third = stage_recipes(recipe)
    assert (first.name, second.name, third.name) == ("pretrain", "finetune", "finetune-2")
    assert first.recipe.data.limit == 100
    assert second.recipe.data.limit is None
    assert third.recipe.data.limit == 100


def test_what_is_chosen_by_name_is_replaced_as_a_whole(tmp_path: Path) -> None:
    recipe = load(
        "task: image-classification\ndata: {source: mnist}\ntrain: {optimizer: {sgd: {momentum: 0.9}}}\n"
        "stages: [pretrain, {finetune: {train: {optimizer: {adam: {}}}}}]",
        tmp_path,
    )
    assert stage_recipes(recipe)[1].recipe.train.optimizer == {"adam": {}}


def test_the_resolved_recipe_loads_again_and_marks_defaults(tmp_path: Path) -> None:
    given = {**MINIMAL, "train": {"lr": 0.01}}
    recipe = recipe_from_dict(given, defaults=task_defaults)
    text = resolved_yaml(recipe, given)
    assert load(text, tmp_path) == recipe
    lines = {line.split(":")[0].strip(): line for line in text.splitlines()}
    assert lines["lr"].endswith("0.01")
    assert lines["epochs"].endswith("# default")


def test_the_schema_describes_every_key() -> None:
    schema = json_schema()
    blocks = [schema, *schema["$defs"].values()]
    missing = [
        name
        for block in blocks
        for name, field in block.get("properties", {}).items()
        if "description" not in field and "$ref" not in str(field) and name not in ("data", "split")
    ]
    assert missing == []


def test_all_mistakes_are_named_at_once_with_their_lines(tmp_path: Path) -> None:
    with pytest.raises(RecipeError) as caught:
        load(
            "task: image-classification\ndata: {source: mnist}\nlr: 3\ntrain:\n  epohcs: 3\n  batch_size: -2\n",
            tmp_path,
        )
    message = caught.value.message
    assert "3 mistakes" in message
    assert "line 3, lr" in message and "did you mean train.lr?" in message
    assert "line 5, train.epohcs" in message and "did you mean epochs?" in message
    assert "line 6, train.batch_size" in message


def test_a_mistake_in_a_stage_is_found_before_anything_runs(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=r"line 6, stages\.1\.finetune\.train\.epoch"):
        load(
            "task: image-classification\ndata: {source: mnist}\nstages:\n  - pretrain\n  - finetune:\n      train: {epoch: 3}\n",
            tmp_path,
        )


@settings(max_examples=300, deadline=None, derandomize=True)
@given(st.text(max_size=200))
def test_any_text_is_a_recipe_or_a_recipe_error(text: str) -> None:
    try:
        value, _ = read_yaml(text)
        if isinstance(value, dict):
            recipe_from_dict(value, defaults=task_defaults)
    except RecipeError as error:
        assert error.exit_code == 2


GOOD = (REPOSITORY / "examples" / "mnist" / "recipe.yaml").read_text()


@settings(max_examples=300, deadline=None, derandomize=True)
@given(st.integers(0, len(GOOD) - 1), st.integers(0, 40), st.text(max_size=8))
def test_a_damaged_recipe_never_ends_in_a_traceback(position: int, cut: int, put: str) -> None:
    try:
        value, _ = read_yaml(GOOD[:position] + put + GOOD[position + cut :])
        if isinstance(value, dict):
            stage_recipes(recipe_from_dict(value, defaults=task_defaults))
    except RecipeError as error:
        assert error.exit_code == 2
