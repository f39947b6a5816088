"""Define a gated recurrent layer as one operation for ONNX: torch would unroll its steps, for one sequence length only."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

# Written out, as torch cannot infer it from annotations with shapes.
SCHEMA = "(Tensor x, Tensor weight, Tensor recurrent, Tensor bias, Tensor recurrent_bias) -> Tensor"


@torch.library.custom_op("tunewright::gru", mutates_args=(), schema=SCHEMA)
def gru(
    x: Float[Tensor, "batch time features"],
    weight: Float[Tensor, "gates features"],
    recurrent: Float[Tensor, "gates units"],
    bias: Float[Tensor, " gates"],
    recurrent_bias: Float[Tensor, " gates"],
) -> Float[Tensor, "batch time units"]:
    """Run a gated recurrent layer forward from a state of zeros (Cho et al. 2014), with torch's order of gates."""
    start = x.new_zeros(1, x.shape[0], recurrent.shape[1])
    return torch.gru(x, start, [weight, recurrent, bias, recurrent_bias], True, 1, 0.0, False, False, True)[0].clone()


@gru.register_fake
def _(x: Tensor, weight: Tensor, recurrent: Tensor, bias: Tensor, recurrent_bias: Tensor) -> Tensor:
    return x.new_empty(x.shape[0], x.shape[1], recurrent.shape[1])


def translations() -> dict[Callable[..., object], Callable[..., object]]:
    """Return the operation's translation for torch's ONNX exporter."""
    return {torch.ops.tunewright.gru.default: _as_onnx}


# A value of the graph; onnxscript, an optional package, has no public type for it.
Value = Any


def _as_onnx(x: Value, weight: Value, recurrent: Value, bias: Value, recurrent_bias: Value) -> Value:
    import onnxscript

    op: Value = onnxscript.opset18
    first = op.Constant(value_ints=[0])

    def reordered(values: Value) -> Value:
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
    return op.Squeeze(
        op.Transpose(found, perm=[2, 0, 1, 3]), op.Constant(value_ints=[2])
    )  # [time, 1, batch, units] to [batch, time, units]
