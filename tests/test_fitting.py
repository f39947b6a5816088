"""A law that is fitted to points is the one that made them."""

from __future__ import annotations

import numpy as np
import pytest

from tunewright.planning.fitting import Point, fit_law
from tunewright.planning.scaling import BESIROGLU


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
