"""Muon: orthogonalised momentum for the matrices inside, AdamW for the rest, and the same steps after a checkpoint."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from gpt_networks import gpt_network, random_tokens
from tunewright.errors import RecipeError
from tunewright.recipe.schema import Tune
from tunewright.training.freezing import parameter_groups, resolve_trainable
from tunewright.training.optimizers.muon import Muon, orthogonalised
from tunewright.training.optimizers.registry import build_optimizer, load_state_tensors, state_tensors


@pytest.mark.parametrize("shape", [(16, 16), (8, 24), (24, 8)])
def test_singular_values_become_about_one(shape: tuple[int, int]) -> None:
    torch.manual_seed(0)
    matrices = torch.randn(3, *shape)
    found = orthogonalised(matrices)
    values = torch.linalg.svdvals(found)
    assert values.min() > 0.3 and values.max() < 1.3
    # The directions stay: U and V of the matrix itself.
    u, _, v = torch.linalg.svd(matrices, full_matrices=False)
    assert torch.allclose((u @ v).flatten(1).norm(dim=1), found.flatten(1).norm(dim=1), rtol=0.35)
    cosine = nn.functional.cosine_similarity((u @ v).flatten(1), found.flatten(1))
    assert cosine.min() > 0.95


def test_a_step_by_hand() -> None:
    torch.manual_seed(0)
    matrix, other = nn.Parameter(torch.randn(6, 4)), nn.Parameter(torch.randn(5))
    before, gradient = matrix.detach().clone(), torch.randn(6, 4)
    groups = [{"params": [matrix, other], "lr": 0.1, "base_lr": 0.1, "inside": [True, False]}]
    optimizer = build_optimizer("muon", groups, 0.1, 0.01)
    momentum = torch.zeros_like(before)
    for _ in range(2):
        matrix.grad, other.grad = gradient.clone(), torch.ones(5)
        optimizer.step()
        momentum = 0.95 * momentum + gradient
        direction = orthogonalised((gradient + 0.95 * momentum)[None])[0]
        before = before * (1 - 0.1 * 0.01) - 0.1 * 0.2 * 6**0.5 * direction
    assert torch.allclose(matrix, before, atol=1e-6)


def optimized(steps: int, checkpoint_at: int | None) -> dict[str, torch.Tensor]:
    network = gpt_network()
    names = {id(value): name for name, value in network.named_parameters()}

    def made() -> tuple[Muon, list[str]]:
        groups = parameter_groups(resolve_trainable(network, Tune()), 0.01)
        optimizer = build_optimizer("muon", groups, 0.01, 0.1)
        assert isinstance(optimizer, Muon)
        return optimizer, [names[id(value)] for group in optimizer.param_groups for value in group["params"]]

    optimizer, ordered = made()
    ids = random_tokens(4, 12)
    for step in range(steps):
        if step == checkpoint_at:
            kept = {name: value.clone() for name, value in state_tensors(optimizer, ordered).items()}
            optimizer, ordered = made()
            load_state_tensors(optimizer, ordered, kept)
        for group in optimizer.param_groups:
            group["lr"] = group["base_lr"] * (1 - step / 10)
        optimizer.zero_grad()
        network({"input_ids": ids}).square().mean().backward()
        optimizer.step()
    return {name: value.detach().clone() for name, value in network.named_parameters()}


def test_the_same_to_the_bit_after_a_checkpoint() -> None:
    whole, resumed = optimized(6, None), optimized(6, 3)
    start = dict(gpt_network().named_parameters())
    for name, value in whole.items():
        assert torch.equal(value, resumed[name]), name
        assert not torch.equal(value, start[name]), name


def test_which_parameters_it_takes() -> None:
    network = gpt_network(tied=False)
    optimizer = build_optimizer("muon", parameter_groups(resolve_trainable(network, Tune()), 0.01), 0.01, 0.0)
    assert isinstance(optimizer, Muon)
    mine = {name for name, value in network.named_parameters() if id(value) in optimizer.matrices()}
    assert mine == {name for name, _ in network.named_parameters() if "proj" in name}


def test_nothing_to_orthogonalise() -> None:
    other = nn.Parameter(torch.randn(5))
    with pytest.raises(RecipeError, match="between embeddings and head"):
        build_optimizer("muon", [{"params": [other], "lr": 0.1, "inside": [False]}], 0.1, 0.0)
