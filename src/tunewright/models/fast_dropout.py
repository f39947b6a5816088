"""Dropout that does not wait for its random numbers.

On a CPU, PyTorch draws one number after the other for each element, which is a fifth of a training step of BERT. Here a
64-bit number decides for four elements: each is kept where its 16 bits are below a threshold. The rate differs from the
asked one by less than 2⁻¹⁶, and the kept elements are scaled by what was really done, so the mean is exact.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from tunewright.models.core.network import Network
from tunewright.models.hub.hf_network import Transformer

LEVELS = 2**16
ATTENTION = "tunewright"


def drop(values: Tensor, rate: float) -> Tensor:
    """Set each element to 0 with probability `rate`, else divide it by 1 − rate (Srivastava et al. 2014, section 4).

    The random numbers are the CPU generator's, 64 bits for four elements, in the order of memory.
    """
    kept = LEVELS - round(rate * LEVELS)
    if kept in (0, LEVELS):  # a threshold at the end of the range is none that 16 bits can hold
        return values * float(kept > 0)
    bits = torch.empty(-(-values.numel() // 4), dtype=torch.int64).random_(-(2**63), None)
    chosen = bits.view(torch.int16)[: values.numel()].view(values.shape) < kept - LEVELS // 2
    return (values * chosen).mul_(LEVELS / kept)


class QuickDropout(nn.Dropout):
    """nn.Dropout, with the numbers from `drop` on a CPU."""

    def forward(self, input: Tensor) -> Tensor:
        if self.training and self.p > 0 and input.device.type == "cpu":
            return drop(input, self.p)
        return super().forward(input)


def quicken_dropout(network: Network) -> None:
    """Let a network on a CPU take its dropout from here; weights, names and configuration stay as they are."""
    for module in network.modules():
        if type(module) is nn.Dropout:
            module.__class__ = QuickDropout
    if isinstance(network, Transformer) and next(network.parameters()).device.type == "cpu":
        _quicken_attention(network)


def _quicken_attention(network: Transformer) -> None:
    """Where the architecture lets its attention be chosen, and would take torch's own, ours is taken."""
    from transformers import AttentionInterface
    from transformers.masking_utils import AttentionMaskInterface, sdpa_mask

    core = network.core
    if core.config._attn_implementation != "sdpa" or not core._can_set_attn_implementation():  # pyright: ignore[reportPrivateUsage]  the library has no public way to ask
        return
    AttentionInterface.register(ATTENTION, attention)
    AttentionMaskInterface.register(ATTENTION, sdpa_mask)
    core.set_attn_implementation(ATTENTION)


def attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    **options: Any,
) -> tuple[Tensor, None]:
    """softmax(q kᵀ · scaling) v with dropout on the weights (Vaswani et al. 2017, section 3.2.1).

    Args:
        query, key, value: [B, heads, T, width].
        attention_mask: [B, 1, T, T], true where a position is looked at; None: everywhere.
        options: as of Transformers' attention functions: dropout, by default 0; scaling, by default 1 / √width; and others.

    Returns:
        [B, T, heads, width]. Without dropout, and for what is more than this, torch's own attention is taken.
    """
    from transformers.integrations.sdpa_attention import sdpa_attention_forward

    dropout, scaling = options.get("dropout", 0.0), options.get("scaling")
    plain = (
        key.shape[1] == query.shape[1] and options.get("position_bias") is None and options.get("is_causal") is not True
    )
    masked = attention_mask is None or attention_mask.dtype == torch.bool
    # Torch's attention takes a missing mask for a causal one, unless the module says otherwise.
    causal = attention_mask is None and getattr(module, "is_causal", True)
    if dropout == 0 or not plain or not masked or causal:
        return sdpa_attention_forward(module, query, key, value, attention_mask, **options)
    with torch.autocast(query.device.type, enabled=False):
        scores = (query * (query.shape[-1] ** -0.5 if scaling is None else scaling)) @ key.transpose(-1, -2)
        if attention_mask is not None:
            scores = scores.masked_fill_(~attention_mask, torch.finfo(scores.dtype).min)
        weights = drop(torch.softmax(scores, -1), dropout)
        return (weights.to(value.dtype) @ value).transpose(1, 2).contiguous(), None
