"""Compute the head of a masked language model at selected positions instead of all.

With 30,000 tokens in the vocabulary, 32 texts of 128 tokens have 500 MB of logits, of which training uses 15 %.
"""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager

import torch
from jaxtyping import Bool
from torch import Tensor, nn

from tunewright.models.core.meta_weights import has_meta_weights
from tunewright.models.core.network import Network, evaluating

# The name, among a batch's inputs, of the bool mask [batch, time] of the positions whose logits are needed.
WANTED = "wanted"
# Rounding differs: products of matrices of another shape add up in another order.
TOLERANCE = 1e-4


@contextmanager
def selected(base: nn.Module, wanted: Bool[Tensor, "batch time"]) -> Generator[None]:
    """Let the base of a model return the states of the wanted positions only, as one text [1, tokens, features].

    The head of any architecture then works unchanged, on fewer tokens.
    """

    def narrow(
        _module: nn.Module, _inputs: object, output: tuple[Tensor, ...] | dict[str, Tensor]
    ) -> tuple[Tensor, ...] | dict[str, Tensor]:
        if isinstance(output, tuple):
            return (output[0][wanted].unsqueeze(0), *output[1:])
        output["last_hidden_state"] = output["last_hidden_state"][wanted].unsqueeze(0)
        return output

    hook = base.register_forward_hook(narrow)
    try:
        yield
    finally:
        hook.remove()


def selection_is_exact(network: Network) -> bool:
    """Return whether the head gives the same logits at selected positions as at all: not if it depends on other positions."""
    if has_meta_weights(network):
        return True  # there is no data to compare
    inputs = network.example()
    assert isinstance(inputs, dict)
    ids = inputs["input_ids"]
    ids = (torch.arange(2 * ids.shape[1], device=ids.device) % 3).reshape(2, -1) + 1
    wanted = torch.arange(ids.numel(), device=ids.device).reshape(ids.shape) % 5 == 1
    plain = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
    with evaluating(network), torch.no_grad():
        whole = network(plain)[wanted]
        try:
            part = network({**plain, WANTED: wanted})
        except (RuntimeError, ValueError, IndexError, TypeError, KeyError):
            return False
    return part.shape == whole.shape and bool(((part - whole).abs() <= TOLERANCE * (1 + whole.abs())).all())
