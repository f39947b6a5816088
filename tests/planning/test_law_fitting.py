"""A law that is fitted to points is the one that made them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import yaml

from tunewright.console import silent
from tunewright.errors import RecipeError
from tunewright.planning.law_fitting import Point, fit_law
from tunewright.planning.scaling_laws import BESIROGLU
from tunewright.tuning.fit_scaling_law import EPOCHS, SHAPES, fit_own_law


def points(noise: float) -> list[Point]:
    random = np.random.default_rng(0)
    return [
        Point(size, tokens, BESIROGLU.loss(size, tokens) * float(np.exp(noise * random.normal())))
        for size in (1e6, 4e6, 2e7, 1e8, 1e9)
        for tokens in (2e7, 1e8, 1e9, 2e10)
    ]


def test_the_law_that_made_the_points_is_found() -> None:
    found = fit_law(points(0.0), resamples=5)
    for name in ("alpha", "beta", "irreducible"):
        assert getattr(found.law, name) == pytest.approx(getattr(BESIROGLU, name), rel=0.02)
    assert found.error < 1e-3
    assert found.law.optimum(1e19)[0] == pytest.approx(BESIROGLU.optimum(1e19)[0], rel=0.05)


def test_intervals_hold_the_truth_where_losses_are_noisy() -> None:
    found = fit_law(points(0.003), resamples=40)
    for name in ("alpha", "beta", "irreducible"):
        low, high = found.interval(name)
        assert low < high and low - 0.05 <= getattr(BESIROGLU, name) <= high + 0.05
    assert 1e-4 < found.error < 0.05


def test_too_few_points_are_refused() -> None:
    with pytest.raises(ValueError, match="several sizes"):
        fit_law(points(0.0)[:4])


def test_a_law_wants_a_language_model_from_nothing(tmp_path: Path) -> None:
    (tmp_path / "recipe.yaml").write_text("task: tabular-classification\ndata: {source: wine}\n")
    with pytest.raises(RecipeError, match="trained from scratch"):
        fit_own_law(tmp_path / "recipe.yaml", [], console=silent())


@pytest.mark.slow
def test_a_law_is_fitted_to_trainings_here(tmp_path: Path) -> None:
    lines = [f"the {row % 7}th room was {row % 5 + 1} stairs up" for row in range(400)]
    (tmp_path / "texts.csv").write_text("text\n" + "\n".join(lines) + "\n")
    recipe = {
        "task": "language-modeling",
        "data": {"source": "texts.csv", "input": "text", "split": {"valid": 0.1, "test": 0.1}},
        "model": {"backbone": {"gpt": {"context": 32}}, "tokenizer": "characters"},
        "train": {"batch_size": 16, "lr": 1e-3},
    }
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    found = fit_own_law(tmp_path / "recipe.yaml", [], console=silent())
    assert found.law.loss(1e5, 1e5) > found.law.loss(1e5, 1e7) > 0
    assert len(SHAPES) * EPOCHS == 16 and len(found.laws) == 100
