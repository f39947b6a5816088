"""Recipes from a stranger: whatever they ask for is refused in a moment, with a sentence and exit 2."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args, get_origin

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import BaseModel

from tunewright.errors import ArtifactError, RecipeError, UserError
from tunewright.files import open_regular, read_bounded
from tunewright.limits import LIMITS, RECIPE_BYTES
from tunewright.models.build import build_network, describe_model
from tunewright.models.speech.base import SpeechSpec
from tunewright.models.speech.registry import build_speech, describe_speech
from tunewright.recipe.loading import load_recipe, recipe_from_dict
from tunewright.recipe.patterns import matches
from tunewright.recipe.schema import Model, Recipe
from tunewright.recipe.yaml_text import read_yaml
from tunewright.runs.folder import read_json
from tunewright.tasks.registry import task_defaults

HEAD = "task: tabular-classification\ndata: {source: d.csv, target: y}\n"
MINIMAL: dict[str, Any] = {"task": "tabular-classification", "data": {"source": "d.csv", "target": "y"}}

TEXTS = {
    "layers": HEAD + f"model: {{layers: [{'{dense: 4}, ' * 1500}{{dense: auto}}]}}\n",
    "stages": HEAD + f"stages: [{'pretrain, ' * 3000}]\n",
    "a list of a megabyte": HEAD + f"eval: {{metrics: [{'1,' * 500_000}]}}\n",
    "aliases": "a: &a [1, 1, 1, 1, 1, 1, 1, 1]\n"
    + "".join(f"b{n}: &b{n} [{', '.join([f'*b{n - 1}' if n else '*a'] * 9)}]\n" for n in range(9)),
    "an alias of itself": HEAD + "eval: &a {metrics: *a}\n",
    "anchors": HEAD + f"x: [{', '.join(f'&a{n} 1' for n in range(90_000))}]\n",
    "brackets": "[" * 10_000,
    "braces": "task: " + "{a: " * 10_000,
    "dashes": "- " * 10_000,
    "questions": HEAD + "? " * 100_000,
    "a long text": "task: " + "x" * 1_000_000 + "\ndata: {source: d.csv}\n",
    "a long key": HEAD + "? " + "x" * 1_000_000 + "\n: 1\n",
    "keys": HEAD + "".join(f"k{n}: 1\n" for n in range(1_000)),
    "a long number": HEAD + "seed: " + "9" * 900_000 + "\n",
    "infinity": HEAD + "train: {lr: 1e999}\n",
    "not a number": HEAD + "train: {lr: nan}\n",
    "half a character": HEAD + 'data.x: "\\ud800"\n',
    "documents": HEAD + "---\n" * 100_000,
    "ten megabytes": HEAD + "#" * 10_000_000,
}


@pytest.mark.parametrize("what", TEXTS)
def test_a_hostile_text_is_refused_in_a_short_message(what: str, tmp_path: Path) -> None:
    path = tmp_path / "recipe.yaml"
    path.write_text(TEXTS[what])
    with pytest.raises(RecipeError) as caught:
        load_recipe(path, defaults=task_defaults)
    assert caught.value.exit_code == 2 and str(path) in caught.value.message
    assert len(caught.value.message) < 30_000


def test_reading_stops_at_a_bound_and_not_at_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TUNEWRIGHT_LIMIT_RECIPE_VALUES", "10")
    with pytest.raises(RecipeError, match="too many values"):
        read_yaml("[\n" + "1,\n" * 50 + "]\n'")  # the text behind it is not even YAML


def test_only_regular_files_are_recipes(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "folder").mkdir()
    (tmp_path / "zero").symlink_to("/dev/zero")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(tmp_path / "socket"))
        for name, found in (("pipe", "pipe"), ("folder", "folder"), ("zero", "device"), ("socket", "socket")):
            with pytest.raises(RecipeError, match=found):
                load_recipe(tmp_path / name, defaults=task_defaults)
            with pytest.raises(UserError, match="not a regular file"):
                open_regular(tmp_path / name)
            with pytest.raises(ArtifactError, match="not a regular file"):
                read_json(tmp_path / name, "a run")


def test_a_file_that_says_it_is_empty_is_empty() -> None:
    assert read_bounded(Path("/proc/self/status"), RECIPE_BYTES, "too large") == b""


def test_a_file_is_read_up_to_the_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "recipe.yaml").write_text("task: digits")
    monkeypatch.setenv("TUNEWRIGHT_LIMIT_RECIPE_BYTES", "10")
    with pytest.raises(UserError, match="12 bytes"):
        read_bounded(tmp_path / "recipe.yaml", RECIPE_BYTES, "too large")


@pytest.mark.parametrize(
    "override",
    [
        "train.lr=" + "9" * 400,
        "train.lr=1e999",
        "." * 20_000 + "=1",
        "a." * 20_000 + "b=1",
        f"stages.{'9' * 5000}=1",
        "stages.²=1",
        "train.epochs=" + "[" * 10_000,
        "x" * 2_000_000 + "=1",
        f"eval.metrics=[{'1,' * 50_000}]",
        "hardware.threads=1000000",
        "train.batch_size=1000000000000",
        "train.epochs=1000000000000000",
        "eval.seeds=1000000000",
        "hardware.devices=1000000000",
        "data.resize=[1000000, 1000000]",
        "model.max_length=1000000000",
        "train.checkpoint_steps=0",
        "train.optimizer={sgd: {momentum: 1e400}}",
        "model.layers=[{dense: 100000000000}]",
        "name=../../x",
        "name=" + "x" * 300,
        'name="a\\0b"',
        "name=..",
        'data.source="a\\0b"',
        "data.source=" + "x" * 300,
        'model.backbone="a\\0b"',
        "model.weights=" + "x/" * 3000,
    ],
)
def test_overrides_have_the_same_bounds(override: str) -> None:
    with pytest.raises(RecipeError) as caught:
        recipe_from_dict(MINIMAL, [override], defaults=task_defaults)
    assert len(caught.value.message) < 30_000


def number_fields(block: type[BaseModel] = Recipe, prefix: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """Every place of the schema where a number may stand."""
    for name, field in block.model_fields.items():
        inner = [part for part in [field.annotation, *get_args(field.annotation)] if isinstance(part, type)]
        blocks = [part for part in inner if issubclass(part, BaseModel)]
        for part in blocks:
            yield from number_fields(part, (*prefix, name))
        if not blocks and any(kind in str(field) for kind in ("int", "float")):
            yield (*prefix, name)


HOSTILE = st.sampled_from(
    [float("nan"), float("inf"), float("-inf"), -1, -(10**20), 10**20, 10**5000, "nan", "inf", "1e999", "9" * 5000]
)


def test_every_number_is_looked_at() -> None:
    found = {".".join(path) for path in number_fields()}
    assert {"seed", "train.lr", "train.epochs", "hardware.threads", "data.split.valid", "privacy.epsilon"} <= found
    assert len(found) > 40 and get_origin(Recipe.model_fields["stages"].annotation) is list


@settings(max_examples=150, deadline=None)
@given(st.sampled_from(sorted(number_fields())), HOSTILE)
def test_no_number_of_the_schema_is_absurd(path: tuple[str, ...], value: Any) -> None:
    block: Any = value
    for name in reversed(path):
        block = {name: block}
    given = {**MINIMAL, **block, "data": {**MINIMAL["data"], **block.get("data", {})}}
    try:
        recipe: Any = recipe_from_dict(given, defaults=task_defaults)
    except RecipeError as error:
        assert len(error.message) < 30_000
        return
    for name in path:
        recipe = getattr(recipe, name)
    # A few fields take any text, and a threshold any number that is finite.
    assert isinstance(recipe, str) or (isinstance(recipe, float) and abs(recipe) <= 1e20) or path[-1] == "freeze"


@pytest.mark.parametrize("pattern", ["(a+)+$", "(?:(a|aa|aaa)+)+\\W\\W", "(", "x" * 1000, "a{999999999999}", "(?R)"])
def test_a_pattern_that_takes_for_ever_is_refused(pattern: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TUNEWRIGHT_LIMIT_PATTERN_MILLISECONDS", "200")
    try:
        assert matches(pattern, ["a" * 60 + "b"] * 2000, "tune.freeze") == set()
    except RecipeError as error:
        assert error.place == "tune.freeze" and error.fix


def test_an_ordinary_pattern_finds_what_it_names() -> None:
    names = [f"encoder.layer.{number}" for number in range(12)]
    assert matches(r"layer\.[0-3]$", names, "tune.freeze") == set(names[:4])


@pytest.mark.parametrize(
    "layers",
    [
        [{"dense": 10**7}, {"dense": 10**7}, {"dense": "auto"}],
        [{"embedding": 10**6, "vocabulary": 10**6}, "flatten", {"dense": "auto"}],
        [{"scattering": 2, "directions": 10**6}, "flatten", {"dense": "auto"}],
    ],
)
def test_a_network_beyond_the_memory_is_never_made(layers: list[Any]) -> None:
    shape = (1, 8, 8) if "scattering" in layers[0] else (8,)
    with pytest.raises(UserError, match=r"memory|at most|too many"):
        build_network(describe_model(Model(layers=layers), input_shape=shape, outputs=2), seed=0)


@pytest.mark.parametrize("options", [{"layers": 10**9}, {"width": 10**9}])
def test_a_speech_network_beyond_the_memory_is_never_made(options: dict[str, int]) -> None:
    with pytest.raises(UserError):
        build_speech(SpeechSpec({**describe_speech({"whisper": options}), "moment": 80, "outputs": 30}), seed=0)


def test_json_is_bounded_in_size_and_depth(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "run.json"
    path.write_text('{"a": ' + "[" * 300 + "]" * 300 + "}")
    with pytest.raises(ArtifactError, match=r"nested too deep"):
        read_json(path, "a run")
    monkeypatch.setenv("TUNEWRIGHT_LIMIT_JSON_BYTES", "100")
    with pytest.raises(ArtifactError, match=r"607 bytes"):
        read_json(path, "a run")


def test_each_limit_has_its_own_name() -> None:
    assert len({limit.name for limit in LIMITS}) == len(LIMITS)


def test_a_recipe_has_a_stage_and_names_each_tracker_once() -> None:
    recipe = {"task": "image-classification", "data": {"source": "digits"}}
    for changes, place in (({"stages": []}, "stages"), ({"track": ["tensorboard"] * 2}, "track")):
        with pytest.raises(RecipeError, match=place):
            recipe_from_dict({**recipe, **changes}, [], defaults=task_defaults)
