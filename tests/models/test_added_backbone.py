"""A backbone of an installed package: named in a recipe it is trained, saved and loaded as our own are."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import pytest

import tunewright
from tunewright.commands.design import show_design
from tunewright.console import silent
from tunewright.errors import ArtifactError, RecipeError
from tunewright.models.build import MODELS
from tunewright.models.saved_model import load_network
from tunewright.run_recipe import run

MODULE = '''
"""Two dense blocks, the second as wide as the recipe says."""
from torch import nn


def pyramid(shape, *, width: int = 8):
    inputs = shape[0] * shape[1] * shape[2]
    return [
        ("flat", "flatten"),
        ("wide", lambda: nn.Sequential(nn.Linear(inputs, 2 * width), nn.ReLU())),
        ("narrow", {"dense": width, "activation": "relu"}),
    ]
'''
RECIPE = {
    "task": "image-classification",
    "data": {"source": "digits"},
    "model": {"backbone": {"pyramid": {"width": 16}}},
    "train": {"epochs": 5},
}


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An installed distribution that adds a backbone."""
    place = tmp_path / "site"
    facts = place / "pyramid_nets-1.0.dist-info"
    facts.mkdir(parents=True)
    (place / "pyramid_nets.py").write_text(MODULE)
    (facts / "METADATA").write_text("Metadata-Version: 2.1\nName: pyramid-nets\nVersion: 1.0\n")
    (facts / "entry_points.txt").write_text("[tunewright.models]\npyramid = pyramid_nets:pyramid\n")
    monkeypatch.syspath_prepend(str(place))
    monkeypatch.delitem(sys.modules, "pyramid_nets", raising=False)
    MODELS._loaded.pop("pyramid", None)  # pyright: ignore[reportPrivateUsage]
    return place


def test_a_recipe_trains_it(package: Path, tmp_path: Path) -> None:
    result = run(RECIPE, runs=tmp_path / "runs", console=silent())
    (stage,) = result.stages.values()
    assert stage.summary["evaluation"]["metrics"]["accuracy"]["value"] > 0.5
    network = load_network(stage.folder / "model").network
    assert [block.name for block in network.blocks() if block.part == "backbone"] == ["flat", "wide", "narrow"]
    assert network.blocks()[1].parameters()["backbone.wide.0.weight"].shape == (32, 64)
    answers = tunewright.load_model(stage.folder / "model")
    assert answers.network.spec == network.spec
    # Without the package the model says what is missing.
    shutil.rmtree(package)
    MODELS._loaded.clear()  # pyright: ignore[reportPrivateUsage]
    with pytest.raises(ArtifactError, match="no backbone of this name") as raised:
        load_network(stage.folder / "model")
    assert "install the package" in str(raised.value)


def test_it_stands_wherever_backbones_are_listed(package: Path, tmp_path: Path) -> None:
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(
        "task: image-classification\ndata: {source: digits, limit: 300}\nmodel: {backbone: {pyramid: {width: 4}}}\n"
    )
    (facts,) = show_design(recipe, [], None, console=silent())
    assert [layer.block for layer in facts.layers][:3] == ["backbone.flat", "backbone.wide", "backbone.narrow"]
    with pytest.raises(RecipeError, match="option") as raised:
        show_design(recipe, ["model.backbone={pyramid: {height: 4}}"], None, console=silent())
    assert "width" in str(raised.value)
    with pytest.raises(RecipeError) as raised:
        show_design(recipe, ["model.backbone=pyramyd"], None, console=silent())
    assert "did you mean pyramid?" in str(raised.value)
