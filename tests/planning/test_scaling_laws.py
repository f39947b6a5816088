"""Scaling laws against the published figures."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from tunewright.commands.size import show_sizes
from tunewright.errors import RecipeError
from tunewright.planning.compute_optimal import shape_for, sizes
from tunewright.planning.scaling_laws import BESIROGLU, EACH, HOFFMANN, LAWS, REPEATED, Law


def test_optima_are_the_published_ones() -> None:
    parameters, tokens = HOFFMANN.optimum(5.76e23)
    assert (f"{parameters:.3e}", f"{tokens:.3e}") == ("4.036e+10", "2.378e+12")
    parameters, tokens = BESIROGLU.optimum(5.76e23)
    assert (f"{parameters:.3e}", f"{tokens:.3e}") == ("7.225e+10", "1.329e+12")
    parameters, tokens = BESIROGLU.optimum(1e21)
    assert (f"{parameters:.3e}", f"{tokens:.3e}") == ("2.778e+09", "5.999e+10")
    assert f"{BESIROGLU.loss(parameters, tokens):.4f}" == "2.3055"


@pytest.mark.parametrize(
    ("parameters", "compute", "tokens"),
    [
        (400e6, 1.92e19, 8.0e9),
        (1e9, 1.21e20, 20.2e9),
        (10e9, 1.23e22, 205.1e9),
        (67e9, 5.76e23, 1.5e12),
        (175e9, 3.85e24, 3.7e12),
        (1e12, 1.27e26, 21.2e12),
    ],
)
def test_chinchilla_s_table_by_six_each(parameters: float, compute: float, tokens: float) -> None:
    assert EACH * parameters * tokens == pytest.approx(compute, rel=0.1)


@pytest.mark.parametrize("law", LAWS.values(), ids=list(LAWS))
def test_nothing_near_the_optimum_is_better(law: Law) -> None:
    parameters, tokens = law.optimum(1e20)
    best = law.loss(parameters, tokens)
    for factor in (0.5, 0.9, 1.1, 2.0):
        assert law.loss(parameters * factor, tokens / factor) > best
    assert law.parameters_for(tokens) == pytest.approx(parameters)


def test_repeated_tokens_are_worth_less() -> None:
    assert REPEATED.loss(6.34e9, 242e9, 25e9) == pytest.approx(2.2256440889984477, rel=1e-12)
    assert REPEATED.fresh_half is not None
    for epochs, worth in ((2, 1.968), (4, 3.726), (16, 10.582), (40, 15.167)):
        found = 1 + REPEATED.fresh_half * (1 - math.exp(-(epochs - 1) / REPEATED.fresh_half))
        assert round(found, 3) == worth
        # With few parameters only the tokens' term tells them apart.
        few = REPEATED.loss(1e6, epochs * 1e9, 1e9) - REPEATED.irreducible - REPEATED.a / 1e6**REPEATED.alpha
        assert (REPEATED.b / few) ** (1 / REPEATED.beta) / 1e9 == pytest.approx(worth, rel=1e-3)


def test_few_tokens_are_read_again_by_a_smaller_network() -> None:
    plenty, scarce = sizes(1e20, None), sizes(1e20, 1e9)
    assert [size.law.name for size in plenty] == ["besiroglu", "hoffmann"] and plenty[0].epochs == 1
    assert scarce[0].law is REPEATED and scarce[0].epochs > 4
    best = scarce[0]
    for factor in (0.8, 1.25):
        assert REPEATED.loss(best.parameters * factor, best.tokens / factor, 1e9) >= best.loss - 1e-6
    assert EACH * best.parameters * best.tokens == pytest.approx(1e20)


@pytest.mark.parametrize("parameters", [1e6, 3e7, 1.3e9, 7e9, 7e10, 4e11])
def test_shapes_are_near_and_usual(parameters: float) -> None:
    shape = shape_for(parameters)
    assert shape.parameters == pytest.approx(parameters, rel=0.25)
    assert shape.width == 64 * shape.heads and 20 <= shape.width / shape.layers <= 200


def test_a_budget_on_the_screen(capsys: pytest.CaptureFixture[str]) -> None:
    show_sizes(None, 1e17, 1e8)
    said = capsys.readouterr().out
    assert "muennighoff" in said and "model: {backbone: {gpt: {layers:" in said and "extrapolated" in said
    assert "bytes per parameter" in said and "GFLOP/s" in said
    with pytest.raises(RecipeError, match="without a recipe"):
        show_sizes(Path("r.yaml"), 1e17, None)
    with pytest.raises(RecipeError, match="out of range"):
        show_sizes(None, -1.0, None)
