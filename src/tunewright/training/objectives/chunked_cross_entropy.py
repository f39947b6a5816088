"""Compute the cross entropy of next tokens without the logits of all tokens at once.

With a vocabulary of V and N tokens, the logits and their gradient have N · V entries each: 4,096 tokens and V = 64,000 make 2 GB.
Here one chunk of tokens at a time goes through the output matrix, and its part of the gradient is computed immediately, so that
nothing of that size is stored (as in Wijmans et al. 2024, "Cut your losses in large-vocabulary language models", in plain
PyTorch instead of kernels).
"""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.autograd.function import FunctionCtx
from torch.nn import functional as F

from tunewright.data.batches.packing import IGNORED
from tunewright.training.objectives.base import Scalar

# The logits in a chunk: 16 MB in float32, which fits a processor's cache.
CHUNK = 2**22

Hidden = Float[Tensor, "tokens features"]
Weight = Float[Tensor, "vocab features"]
Targets = Int[Tensor, " tokens"]
Losses = Float[Tensor, " tokens"]


def token_loss_sum(
    hidden: Float[Tensor, "*tokens features"],
    weight: Weight,
    targets: Int[Tensor, "*tokens"],
    *,
    z_loss: float = 0.0,
    dtype: torch.dtype = torch.float32,
) -> Scalar:
    """Compute Σ over tokens of −log softmax(W h)[target] + z · log²(Σ exp(W h)).

    The second term keeps the logits from drifting (Chowdhery et al. 2022, section 5, with z = 1e-4).

    Args:
        targets: `IGNORED` where there is none.
        dtype: the type of the matrix products; sums and exponentials are float32.
    """
    counted = targets != IGNORED
    return _TokenLoss.apply(hidden[counted], weight, targets[counted], z_loss, dtype)  # pyright: ignore


def token_losses(
    hidden: Hidden, weight: Weight, targets: Targets, *, dtype: torch.dtype
) -> tuple[Losses, Bool[Tensor, " tokens"]]:
    """Compute −log p of each target in float32, and whether it has the largest logit; without gradients.

    Args:
        targets: none of them `IGNORED`.
    """
    losses, right = torch.empty(len(targets), device=hidden.device), torch.empty_like(targets, dtype=torch.bool)
    matrix = weight.to(dtype).t()
    for part in _chunks(len(targets), weight.shape[0]):
        logits = (hidden[part].to(dtype) @ matrix).float()
        losses[part] = F.cross_entropy(logits, targets[part], reduction="none")
        right[part] = logits.argmax(1) == targets[part]
    return losses, right


def each_token_loss(hidden: Hidden, weight: Weight, targets: Targets, *, dtype: torch.dtype) -> Losses:
    """Compute −log p of each target in float32, with gradients, for which the logits are recomputed.

    Args:
        targets: none of them `IGNORED`.
    """
    return _EachTokenLoss.apply(hidden, weight, targets, dtype)  # pyright: ignore


def _chunks(tokens: int, vocab: int) -> list[slice]:
    size = max(1, CHUNK // vocab)
    return [slice(start, start + size) for start in range(0, tokens, size)]


class _TokenLoss(torch.autograd.Function):
    """Compute the loss with its gradient in the forward pass: as the loss is a sum, its own gradient is a factor."""

    @staticmethod
    def forward(
        ctx: FunctionCtx, hidden: Hidden, weight: Weight, targets: Targets, z_loss: float, dtype: torch.dtype
    ) -> Scalar:
        for_hidden, for_weight = ctx.needs_input_grad[:2]
        matrix = weight.to(dtype)
        hidden_gradient = torch.empty_like(hidden) if for_hidden else None
        weight_gradient = torch.zeros_like(weight) if for_weight else None
        total = torch.zeros((), device=hidden.device)
        for part in _chunks(len(targets), weight.shape[0]):
            states, names = hidden[part].to(dtype), targets[part, None]
            logits = (states @ matrix.t()).float()
            sums = logits.logsumexp(1, keepdim=True)
            total += (sums - logits.gather(1, names)).sum() + z_loss * sums.square().sum()
            if not (for_hidden or for_weight):
                continue
            slope = logits.sub_(sums).exp_()  # the probabilities
            if z_loss:
                slope *= 1 + 2 * z_loss * sums
            slope.scatter_add_(1, names, torch.full_like(sums, -1.0))
            slope = slope.to(dtype)
            if hidden_gradient is not None:
                hidden_gradient[part] = slope @ matrix
            if weight_gradient is not None:
                weight_gradient += slope.t() @ states
        ctx.save_for_backward(hidden_gradient, weight_gradient)  # pyright: ignore  None is allowed
        return total

    @staticmethod
    def backward(ctx: FunctionCtx, *gradients: Tensor) -> tuple[Tensor | None, Tensor | None, None, None, None]:
        (factor,) = gradients
        hidden_gradient, weight_gradient = (None if saved is None else saved * factor for saved in ctx.saved_tensors)
        return hidden_gradient, weight_gradient, None, None, None


class _EachTokenLoss(torch.autograd.Function):
    """Compute a loss for each token; the gradients are computed in the backward pass, where their factors are known."""

    @staticmethod
    def forward(ctx: FunctionCtx, hidden: Hidden, weight: Weight, targets: Targets, dtype: torch.dtype) -> Losses:
        ctx.save_for_backward(hidden, weight, targets)
        ctx.dtype = dtype
        return token_losses(hidden, weight, targets, dtype=dtype)[0]

    @staticmethod
    def backward(ctx: FunctionCtx, *gradients: Tensor) -> tuple[Tensor | None, Tensor | None, None, None]:
        hidden, weight, targets = ctx.saved_tensors
        for_hidden, for_weight = ctx.needs_input_grad[:2]
        matrix = weight.to(ctx.dtype)
        hidden_gradient = torch.empty_like(hidden) if for_hidden else None
        weight_gradient = torch.zeros_like(weight) if for_weight else None
        for part in _chunks(len(targets), weight.shape[0]):
            states, factors = hidden[part].to(ctx.dtype), gradients[0][part, None]
            slope = (states @ matrix.t()).float().softmax(1) * factors
            slope = slope.scatter_add_(1, targets[part, None], -factors).to(ctx.dtype)
            if hidden_gradient is not None:
                hidden_gradient[part] = slope @ matrix
            if weight_gradient is not None:
                weight_gradient += slope.t() @ states
        return hidden_gradient, weight_gradient, None, None
