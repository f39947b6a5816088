"""Things chosen by name, with options checked against a function's signature."""

from __future__ import annotations

from typing import Annotated

import pytest
from pydantic import Field

from tunewright.errors import RecipeError
from tunewright.recipe.named import check_options, choose, parse_named, suggest


def example(
    rest: object, *, ratio: Annotated[float, Field(gt=0, lt=1)] = 0.5, patch: int | None = None, every: float
) -> None: ...


def no_options(rest: object) -> None: ...


def test_a_name_with_and_without_options() -> None:
    assert parse_named("adam", "train.optimizer") == ("adam", {})
    assert parse_named({"sgd": {"momentum": 0.9}}, "train.optimizer") == ("sgd", {"momentum": 0.9})


@pytest.mark.parametrize("value", [{}, {"a": {}, "b": {}}, {"sgd": 0.9}, {"sgd": None}])
def test_neither_a_name_nor_options(value) -> None:
    with pytest.raises(RecipeError, match=r"train\.optimizer: this is neither a name"):
        parse_named(value, "train.optimizer")


def test_an_unknown_name_gets_the_nearest_one() -> None:
    assert choose({"adam": 1, "sgd": 2}, "sgd", "train.optimizer") == 2
    with pytest.raises(RecipeError) as caught:
        choose({"adam": 1, "sgd": 2}, "adm", "train.optimizer")
    assert caught.value.place == "train.optimizer"
    assert caught.value.found == "adm"
    assert caught.value.expected == "adam, sgd"
    assert caught.value.fix == "did you mean adam?"
    assert suggest("zzz", ["adam"]) == "choose one of these"


def test_options_get_the_types_of_the_signature() -> None:
    checked = check_options(example, {"ratio": "0.25", "every": 3}, "x.example")
    assert checked == {"ratio": 0.25, "every": 3.0}
    assert isinstance(checked["every"], float)
    assert check_options(example, {"patch": None, "every": 1.5}, "x.example") == {"patch": None, "every": 1.5}


@pytest.mark.parametrize(
    ("options", "place", "fix"),
    [
        ({"every": 1, "ration": 0.5}, "x.example.ration", "did you mean ratio?"),
        ({"every": 1, "rest": 1}, "x.example.rest", None),
        ({"every": 1, "ratio": 1.0}, "x.example.ratio", None),
        ({"every": 1, "ratio": float("nan")}, "x.example.ratio", None),
        ({"every": 1, "patch": "wide"}, "x.example.patch", None),
        ({"every": [1]}, "x.example.every", None),
        ({}, "x.example", "write {example: {every: …}}"),
    ],
)
def test_bad_options(options, place: str, fix: str | None) -> None:
    with pytest.raises(RecipeError) as caught:
        check_options(example, options, "x.example")
    assert caught.value.place == place
    assert caught.value.expected
    assert fix is None or caught.value.fix == fix


def test_a_thing_without_options() -> None:
    assert check_options(no_options, {}, "train.objective.mse") == {}
    with pytest.raises(RecipeError) as caught:
        check_options(no_options, {"a": 1}, "train.objective.mse")
    assert caught.value.fix == "write only mse"
