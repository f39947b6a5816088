"""The last layer for the first token alone: the same logits and gradients, and only where nobody reads the others."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from architectures import TEXTS
from tiny_networks import pretrained_network, tiny_network
from tunewright.models.core.meta_weights import building_with, use_fake_weights
from tunewright.models.core.network import evaluating
from tunewright.models.hub.adapters import add_adapter
from tunewright.models.hub.first_token_only import narrow_last_layer
from tunewright.models.hub.hf_network import Transformer

NARROWED = {"bert", "roberta", "xlm-roberta", "electra", "deberta-v2", "mpnet"}


def batch() -> dict[str, Tensor]:
    ids = torch.randint(5, 9, (3, 11), generator=torch.Generator().manual_seed(1))
    mask = torch.ones_like(ids)
    mask[1, 4:] = 0
    mask[2, 9:] = 0
    return {"input_ids": ids, "attention_mask": mask}


def computed(network: Transformer) -> tuple[Tensor, dict[str, Tensor]]:
    """The logits and all gradients of a batch."""
    network.zero_grad()
    with evaluating(network):
        logits = network(batch())
        (logits * torch.arange(1.0, 4.0)).square().sum().backward()
    return logits.detach(), {name: value.grad for name, value in network.named_parameters() if value.grad is not None}


@pytest.mark.parametrize("kind", TEXTS)
def test_same_logits_and_gradients(kind: str) -> None:
    network = tiny_network(kind)
    network.train()
    logits, gradients = computed(network)
    assert narrow_last_layer(network) is (kind in NARROWED)
    assert all(module.training for module in network.modules())
    found, found_gradients = computed(network)
    assert torch.allclose(found, logits, atol=1e-6)
    assert found_gradients.keys() == gradients.keys()
    for name, value in gradients.items():
        assert torch.allclose(found_gradients[name], value, rtol=1e-4, atol=1e-6), name


@pytest.mark.parametrize("kind", TEXTS)
def test_on_meta_weights_the_same_is_narrowed(kind: str) -> None:
    """So that a plan reckons with what the run will do."""
    with building_with("meta"):
        network = tiny_network(kind)
    use_fake_weights(network)
    assert narrow_last_layer(network) is (kind in NARROWED)


def test_what_is_not_computed() -> None:
    network = tiny_network("bert")
    sizes: list[Any] = []
    feed_forward = network.base.get_submodule("encoder.layer.2.intermediate")
    feed_forward.register_forward_hook(lambda _module, _inputs, output: sizes.append(output.shape[1]))
    network(batch())
    narrow_last_layer(network)
    sizes.clear()
    network(batch())
    assert sizes == [1]


def test_with_an_adapter_and_recomputed_activations(tmp_path: Path) -> None:
    network = add_adapter(pretrained_network(tmp_path, "bert"), "lora", seed=0)
    assert isinstance(network, Transformer)
    network.core.activation_checkpointing_enable(activation_checkpointing_kwargs={"use_reentrant": False})
    logits, gradients = computed(network)
    assert narrow_last_layer(network)
    found, found_gradients = computed(network)
    assert torch.allclose(found, logits, atol=1e-6)
    assert all(torch.allclose(found_gradients[name], value, rtol=1e-4, atol=1e-6) for name, value in gradients.items())


def test_pictures_are_left_alone() -> None:
    for kind in ("resnet", "vit"):
        assert not narrow_last_layer(tiny_network(kind))
