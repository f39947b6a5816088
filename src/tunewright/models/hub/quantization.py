"""Frozen matrices in 4 or 8 bits: each is made into numbers again for every product, and gradients pass through to what is trained.

nf4: the 16 levels of NormalFloat in blocks of 64, whose scales are 8-bit numbers in blocks of 256 (Dettmers et al. 2023, "QLoRA",
section 3): 4.13 bits a number. By bitsandbytes. int8: each row in whole numbers up to 127 (Dettmers et al. 2022, "LLM.int8()", section
2.1); what it is multiplied with is not rounded.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Generator, Iterable
from contextlib import contextmanager
from functools import cache
from importlib.util import find_spec
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tunewright.errors import RecipeError
from tunewright.models.core.meta_weights import is_meta

Kind = Literal["nf4", "int8"]
# Numbers that share a scale, and scales that share one themselves.
BLOCK, SCALES = 64, 256
LARGEST = 127


class QuantizedLinear(nn.Linear):
    """x W + b of a matrix that is kept in few bits and never trained. `weight` is W as it is computed with, made anew at each look.

    Args:
        kind: nf4, for a matrix of a multiple of 64 numbers, or int8.
    """

    scales: Tensor
    scale_of_scales: Tensor
    mean_scale: Tensor
    levels: Tensor

    def __init__(self, inputs: int, outputs: int, bias: nn.Parameter | None, kind: Kind) -> None:
        nn.Module.__init__(self)  # nn.Linear would make a matrix of its own
        self.in_features, self.out_features, self.kind = inputs, outputs, kind
        count = inputs * outputs
        kept = torch.empty(outputs, inputs, dtype=torch.int8)
        if kind == "nf4":
            kept = torch.empty(count // 2, 1, dtype=torch.uint8)
            blocks = count // BLOCK
            self.register_buffer("scales", torch.empty(blocks, dtype=torch.uint8))
            self.register_buffer("scale_of_scales", torch.empty(-(-blocks // SCALES)))
            self.register_buffer("mean_scale", torch.empty(()))
            self.register_buffer("levels", torch.empty(256))
        else:
            self.register_buffer("scales", torch.empty(outputs))
        self.kept = nn.Parameter(kept, requires_grad=False)
        self.bias = bias

    @property
    def weight(self) -> Tensor:  # pyright: ignore[reportIncompatibleVariableOverride]
        """W [outputs, inputs] in float32."""
        return self.numbers(torch.float32)

    def numbers(self, dtype: torch.dtype) -> Tensor:
        """W [outputs, inputs] in a type of floating-point numbers."""
        if self.kind == "int8":
            return (self.kept * self.scales.float()[:, None]).to(dtype)
        four_bit = bitsandbytes()
        scales = four_bit.dequantize_blockwise(self.scales, self.scale_of_scales, self.levels, SCALES, torch.float32)
        shape = [self.out_features, self.in_features]
        return four_bit.dequantize_4bit(self.kept, scales + self.mean_scale, BLOCK, "nf4", shape, dtype)

    @torch.no_grad()
    def keep(self, matrix: Tensor) -> None:
        """Round W [outputs, inputs] to what can be kept."""
        if self.kind == "int8":
            self.scales.copy_(matrix.float().abs().amax(1) / LARGEST)
            rows = self.scales.clamp(min=torch.finfo(torch.float32).tiny)[:, None]
            self.kept.copy_((matrix.float() / rows).round_())
            return
        bitsandbytes()
        from bitsandbytes.functional import QuantState, quantize_4bit

        kept, state = quantize_4bit(
            matrix.float().contiguous(), blocksize=BLOCK, compress_statistics=True, quant_type="nf4"
        )
        assert isinstance(state.state2, QuantState)
        for name, value in {
            "kept": kept,
            "scales": state.absmax,
            "scale_of_scales": state.state2.absmax,
            "mean_scale": state.offset,
            "levels": state.state2.code,
        }.items():
            getattr(self, name).data.copy_(value)

    def forward(self, input: Tensor) -> Tensor:
        """Turn […, inputs] into […, outputs]."""
        return _Product.apply(input, self.bias, self)  # pyright: ignore[reportReturnType]


class _Product(torch.autograd.Function):
    """x Wᵀ + b, with a gradient of x and b alone: nothing but W, in few bits, is remembered for it."""

    @staticmethod
    def forward(ctx: Any, given: Tensor, bias: Tensor | None, layer: QuantizedLinear) -> Tensor:
        kind = given.device.type
        dtype = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else given.dtype
        ctx.layer, ctx.dtype = layer, given.dtype
        bias = None if bias is None else bias.to(dtype)
        return F.linear(given.to(dtype), layer.numbers(dtype), bias)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Any:  # pyright: ignore[reportIncompatibleMethodOverride]
        back = (gradient @ ctx.layer.numbers(gradient.dtype)).to(ctx.dtype) if ctx.needs_input_grad[0] else None
        bias = gradient.flatten(0, -2).sum(0) if ctx.needs_input_grad[1] else None
        return back, bias, None


def quantize(module: nn.Module, names: Iterable[str], kind: Kind) -> None:
    """Keep these linear layers of a module in few bits; matrices that cannot be stay as they are.

    Raises:
        RecipeError: none of them can be.
    """
    fitting = [name for name in names if _fits(module.get_submodule(name), kind)]
    if not fitting:
        raise RecipeError(
            "the backbone has no linear layer to quantize",
            place="tune.quantize",
            found=kind,
            expected="layers of class Linear" + (f", with a multiple of {BLOCK} numbers" if kind == "nf4" else ""),
            fix="leave tune.quantize out",
        )
    for name in fitting:
        linear = module.get_submodule(name)
        assert isinstance(linear, nn.Linear)
        device = linear.weight.device
        with torch.device("meta" if linear.weight.is_meta else device):
            layer = QuantizedLinear(linear.in_features, linear.out_features, linear.bias, kind)
        if not is_meta(linear.weight):
            layer.keep(linear.weight)
        module.set_submodule(name, layer)


def restore(module: nn.Module) -> None:
    """Put plain linear layers with the rounded numbers in place of those in few bits."""
    for name, layer in list(module.named_modules()):
        if isinstance(layer, QuantizedLinear):
            plain = nn.Linear(layer.in_features, layer.out_features, bias=False, device=layer.kept.device)
            plain.weight = nn.Parameter(layer.weight, requires_grad=False)
            plain.bias = layer.bias
            module.set_submodule(name, plain)


def size(parameter: Tensor) -> int:
    """Return how many numbers a parameter holds: two lie in a byte of nf4."""
    return parameter.numel() * (2 if parameter.dtype == torch.uint8 else 1)


def _fits(module: nn.Module, kind: Kind) -> bool:
    return type(module) is nn.Linear and (kind == "int8" or module.weight.numel() % BLOCK == 0)


@cache
def bitsandbytes(place: str = "tune.quantize", found: str = "nf4", instead: str = "tune.quantize: int8") -> Any:
    """Return the operations of bitsandbytes.

    Args:
        place: where a recipe asks for them; found: what stands there; instead: what goes without.

    Raises:
        RecipeError: it is not installed.
    """
    if find_spec("bitsandbytes") is None:
        raise RecipeError(
            "this needs bitsandbytes, which is not installed",
            place=place,
            found=found,
            fix=f'pip install "tunewright[quantize]", or {instead}',
        )
    with nothing_fetched():
        import bitsandbytes  # pyright: ignore  # noqa: F401
    return torch.ops.bitsandbytes


@contextmanager
def nothing_fetched() -> Generator[None]:
    """bitsandbytes is imported here, by peft too. Where `kernels` is installed it would fetch a kernel from the hub, and run it; elsewhere
    it complains."""
    known = sys.modules.get("kernels")
    sys.modules["kernels"] = None  # pyright: ignore[reportArgumentType]
    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(logging.NOTSET)
        del sys.modules["kernels"]
        if known is not None:
            sys.modules["kernels"] = known
