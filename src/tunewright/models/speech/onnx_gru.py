"""A gated recurrent layer as one operation, for files of operations: torch would write its steps out one by one, for one length alone."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor


@torch.library.custom_op("tunewright::gru", mutates_args=())
def gru(x: Tensor, weight: Tensor, recurrent: Tensor, bias: Tensor, recurrent_bias: Tensor) -> Tensor:
    """[B, T, D] to [B, T, H], read forwards from zeros (Cho et al. 2014), with torch's order of gates."""
    start = x.new_zeros(1, x.shape[0], recurrent.shape[1])
    return torch.gru(x, start, [weight, recurrent, bias, recurrent_bias], True, 1, 0.0, False, False, True)[0].clone()


@gru.register_fake
def _(x: Tensor, weight: Tensor, recurrent: Tensor, bias: Tensor, recurrent_bias: Tensor) -> Tensor:
    return x.new_empty(x.shape[0], x.shape[1], recurrent.shape[1])


def translations() -> dict[Callable[..., Any], Callable[..., Any]]:
    """What torch's ONNX exporter needs to know of it."""
    return {torch.ops.tunewright.gru.default: _as_onnx}


def _as_onnx(x: Any, weight: Any, recurrent: Any, bias: Any, recurrent_bias: Any) -> Any:
    import onnxscript

    op: Any = onnxscript.opset18
    first = op.Constant(value_ints=[0])

    def reordered(values: Any) -> Any:
        # Torch: reset, update, new; ONNX: update, reset, new.
        reset, update, new = op.Split(values, num_outputs=3, axis=0)
        return op.Concat(update, reset, new, axis=0)

    found, _last = op.GRU(
        op.Transpose(x, perm=[1, 0, 2]),
        op.Unsqueeze(reordered(weight), first),
        op.Unsqueeze(reordered(recurrent), first),
        op.Unsqueeze(op.Concat(reordered(bias), reordered(recurrent_bias), axis=0), first),
        hidden_size=recurrent.shape[1],
        linear_before_reset=1,
    )
    return op.Squeeze(op.Transpose(found, perm=[2, 0, 1, 3]), op.Constant(value_ints=[2]))  # [T, 1, B, H] to [B, T, H]
