"""Quick dropout: its rate, its scale, its gradient; attention with it is attention."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from architectures import make_inputs
from tiny import texts, tiny_bert
from tiny_networks import tiny_network
from tunewright.console import silent
from tunewright.models.build import build_network, describe_model
from tunewright.models.core.network import evaluating
from tunewright.models.fast_dropout import ATTENTION, QuickDropout, attention, drop, quicken_dropout
from tunewright.models.hub.hf_network import Transformer
from tunewright.recipe.schema import Model
from tunewright.run_recipe import run


@pytest.mark.parametrize("rate", [0.1, 0.5, 0.9])
def test_rate_and_scale(rate: float) -> None:
    torch.manual_seed(0)
    found = drop(torch.ones(1_000_003), rate)
    zeros = (found == 0).double().mean().item()
    assert zeros == pytest.approx(rate, abs=4 * (rate * (1 - rate) / 1e6) ** 0.5)
    assert found.max().item() == pytest.approx(1 / (1 - rate), rel=1e-3)
    assert found.mean().item() == pytest.approx(1, abs=5 * (rate / (1 - rate) / 1e6) ** 0.5)
    # Each of the four elements that share a number is dropped as often, and on its own.
    lanes = (found[:1_000_000].reshape(-1, 4) == 0).double()
    assert torch.allclose(lanes.mean(0), torch.full((4,), rate, dtype=torch.float64), atol=0.004)
    assert torch.corrcoef(lanes.T).fill_diagonal_(0).abs().max() < 0.01


def test_all_or_nothing_and_repeatable() -> None:
    values = torch.randn(7, 5)
    assert (drop(values, 1.0) == 0).all() and torch.equal(drop(values, 0.0), values)
    torch.manual_seed(3)
    first = drop(values, 0.3)
    torch.manual_seed(3)
    assert torch.equal(first, drop(values, 0.3))
    assert not torch.equal(first, drop(values, 0.3))


def test_the_gradient_passes_where_the_value_passed() -> None:
    values = torch.randn(40, requires_grad=True)
    found = drop(values, 0.25)
    found.sum().backward()
    assert values.grad is not None
    assert torch.equal(values.grad == 0, found == 0)
    assert values.grad[values.grad != 0].allclose(torch.tensor(65536 / (65536 - 16384)))


def test_attention_is_attention() -> None:
    """With a rate so small that nothing is dropped, it is torch's own."""
    torch.manual_seed(0)
    query, key, value = torch.randn(3, 2, 4, 9, 8)
    module = nn.Module()
    module.is_causal = False
    mask = torch.rand(2, 1, 9, 9) > 0.3
    mask[..., 0] = True
    for chosen in (mask, None):
        expected, _ = attention(module, query, key, value, chosen, scaling=0.3)
        found, _ = attention(module, query, key, value, chosen, dropout=1e-7, scaling=0.3)
        assert found.shape == expected.shape and torch.allclose(found, expected, atol=1e-6)


def test_its_mean_is_that_without_dropout() -> None:
    torch.manual_seed(0)
    query, key, value = torch.randn(3, 1, 2, 6, 4)
    module = nn.Module()
    module.is_causal = False
    expected, _ = attention(module, query, key, value, None)
    found = torch.stack([attention(module, query, key, value, None, dropout=0.2)[0] for _ in range(4000)]).mean(0)
    assert torch.allclose(found, expected, atol=0.06)


@pytest.mark.parametrize("kind", ["bert", "roberta", "distilbert", "deberta-v2", "modernbert", "vit", "swin"])
def test_evaluation_is_as_it_was(kind: str) -> None:
    network = tiny_network(kind)
    inputs = make_inputs(kind, 5, length=11)
    with evaluating(network), torch.no_grad():
        before = network(inputs)
        quicken_dropout(network)
        assert torch.allclose(network(inputs), before, atol=1e-6)
    network.train()
    torch.manual_seed(0)
    first = network(inputs)
    torch.manual_seed(0)
    assert torch.equal(first, network(inputs))
    first.sum().backward()


def test_what_is_replaced_and_what_is_saved(tmp_path: Path) -> None:
    network = build_network(
        describe_model(Model(layers=["flatten", {"dropout": 0.5}, {"dense": 2}]), input_shape=(4,), outputs=2), seed=0
    )
    quicken_dropout(network)
    assert any(type(module) is QuickDropout for module in network.modules())
    bert = tiny_network("bert")
    quicken_dropout(bert)
    assert isinstance(bert, Transformer) and bert.core.config._attn_implementation == ATTENTION
    given = {
        "task": "text-classification",
        "data": {"source": str(texts(tmp_path / "texts.jsonl"))},
        "model": {"backbone": str(tiny_bert(tmp_path / "bert"))},
        "train": {"epochs": 1},
        "eval": {"resamples": 100},
    }
    folder = run(given, runs=tmp_path / "runs", console=silent()).stages["finetune"].folder
    assert ATTENTION not in (folder / "model" / "config.json").read_text()
