"""The cross entropy of next tokens, without the logits of all tokens at once.

With V pieces and N tokens the logits are N · V numbers, and so is their gradient: 4,096 tokens and 64,000 pieces make 2 GB.
Here a chunk of tokens goes through the output matrix at a time, and its part of the gradient is computed at once, so that
nothing of that size is kept (as in Wijmans et al. 2024, "Cut your losses in large-vocabulary language models", whose
kernels this does in plain PyTorch).
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from tunewright.data.batches.packing import IGNORED

# Logits in a chunk: 16 MB in float32, which stays near the processor.
CHUNK = 2**22


def token_loss_sum(
    hidden: Tensor, weight: Tensor, targets: Tensor, *, z_loss: float = 0.0, dtype: torch.dtype = torch.float32
) -> Tensor:
    """Σ over tokens of −log softmax(W h)[target] + z · log²(Σ exp(W h)).

    The second term keeps the logits from drifting (Chowdhery et al. 2022, section 5, with z = 1e-4).

    Args:
        hidden: [..., D] states; weight: [V, D]; targets: [...] int64, `IGNORED` where there is none.
        dtype: what the products of matrices are computed in; sums and exponentials are float32.
    """
    counted = targets != IGNORED
    return _TokenLoss.apply(hidden[counted], weight, targets[counted], z_loss, dtype)  # pyright: ignore


def token_losses(hidden: Tensor, weight: Tensor, targets: Tensor, *, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """−log p of each target [N] float32, and whether the largest logit names it [N] bool; without gradients.

    Args:
        hidden: [N, D]; weight: [V, D]; targets: [N] int64, none of them `IGNORED`.
    """
    losses, right = torch.empty(len(targets), device=hidden.device), torch.empty_like(targets, dtype=torch.bool)
    matrix = weight.to(dtype).t()
    for part in _chunks(len(targets), weight.shape[0]):
        logits = (hidden[part].to(dtype) @ matrix).float()
        losses[part] = F.cross_entropy(logits, targets[part], reduction="none")
        right[part] = logits.argmax(1) == targets[part]
    return losses, right


def each_token_loss(hidden: Tensor, weight: Tensor, targets: Tensor, *, dtype: torch.dtype) -> Tensor:
    """−log p of each target [N] float32, to be summed up as one likes: the logits are computed again for the gradient.

    Args:
        hidden: [N, D]; weight: [V, D]; targets: [N] int64, none of them `IGNORED`.
    """
    return _EachTokenLoss.apply(hidden, weight, targets, dtype)  # pyright: ignore


def _chunks(tokens: int, pieces: int) -> list[slice]:
    size = max(1, CHUNK // pieces)
    return [slice(start, start + size) for start in range(0, tokens, size)]


class _TokenLoss(torch.autograd.Function):
    """The loss with its gradient, computed in the forward pass: the loss is a sum, so its own gradient is a factor."""

    @staticmethod
    def forward(ctx: Any, hidden: Tensor, weight: Tensor, targets: Tensor, z_loss: float, dtype: torch.dtype) -> Tensor:
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
        ctx.save_for_backward(hidden_gradient, weight_gradient)
        return total

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, Tensor | None, None, None, None]:
        (factor,) = gradients
        hidden_gradient, weight_gradient = (None if saved is None else saved * factor for saved in ctx.saved_tensors)
        return hidden_gradient, weight_gradient, None, None, None


class _EachTokenLoss(torch.autograd.Function):
    """A loss for each token. What its gradient is multiplied with is not known in the forward pass, so nothing is kept."""

    @staticmethod
    def forward(ctx: Any, hidden: Tensor, weight: Tensor, targets: Tensor, dtype: torch.dtype) -> Tensor:
        ctx.save_for_backward(hidden, weight, targets)
        ctx.dtype = dtype
        return token_losses(hidden, weight, targets, dtype=dtype)[0]

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, Tensor | None, None, None]:
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
