"""Memory that others measured on cards, beside what planning says of the same training: nothing here is fitted to a row.

A decoder of the Llama family is built without memory, written as torchtune and torchtitan write theirs, and one step of it is followed
operation by operation (`tunewright.hardware.memory_tracer`). What cannot be followed stands in as follows, with a wider range:

- flash attention: PyTorch's flash kernel for processors, which keeps the same: queries, keys, values, result, a number each row;
- torch.compile: what products and attention read or make is kept, since it has to be written down in any case, and what lies between
  is computed again (PyTorch's torch/_functorch/partitioners.py, `ban_if_materialized_backward`); the loss keeps its logits alone;
- 8-bit Adam: two states of a byte a parameter, and a float32 for each block of 256 (Dettmers et al. 2022, section 2.2);
- 4-bit weights: half a byte, and for each block of 64 a byte and for each 256 of these a float32 (Dettmers et al. 2023, section 3);
- dividing among devices (FSDP): weights, gradients and states divided, two layers gathered at a time;
- tensor parallelism: everything within a layer, the vocabulary, and by sequence parallelism all activations, divided by its degree;
- pipelines of n stages (1F1B): the first stage has a part of the layers and the layer inputs of n micro-batches (Narayanan et al. 2021, section 2.2).

Sources of the settings:
- torchtune: README.md, "Optimization flags" (Llama 3.2 3B, one A100, batch 2, sequences of 4,096, bf16 throughout, AdamW), and
  recipes/configs/llama3_2/3B_{full,lora,qlora}_single_device.yaml (LoRA of rank 64 on q, v, output and the feed-forward layers; 8 chunks).
- torchtitan: benchmarks/llama3_h100_202412_torchtitan.md, tables 1, 3, 4 and 5 (float32 weights, bf16 arithmetic, sequences of 8,192;
  selective checkpointing keeps attention and every second product: torchtitan/parallelisms/parallelize_llama.py).

    python benchmarks/published_memory.py
"""

from __future__ import annotations

import json
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Literal

import torch
from environments import QUICK, RESULTS
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import CheckpointPolicy, checkpoint, create_selective_checkpoint_contexts

from tunewright.hardware.memory_tracer import Tracer
from tunewright.models.core.meta_weights import building_with, use_fake_weights

GIB = 2**30
aten = torch.ops.aten
ATTENTION = aten._scaled_dot_product_flash_attention_for_cpu.default
# How far a prediction may be off: where all is followed; where something stands in for it; where devices are divided besides.
FOLLOWED, STANDS_IN, DIVIDED = 0.05, 0.15, 0.2
# torchtitan reports what the allocator reserved (torchtitan/metrics.py, max_reserved_gib): 15 % of that lay idle between tensors in the
# mean of eight models (Guo et al. 2024, "GMLake", arXiv 2401.08156, abstract).
RESERVED = 1 / (1 - 0.15)


@dataclass(frozen=True, kw_only=True)
class Shape:
    """A decoder."""

    layers: int
    width: int
    heads: int
    shared: int
    inner: int
    vocabulary: int = 128_256
    tied: bool = False


LLAMA_3B = Shape(layers=28, width=3072, heads=24, shared=8, inner=8192, tied=True)
LLAMA_8B = Shape(layers=32, width=4096, heads=32, shared=8, inner=14336)
LLAMA_70B = Shape(layers=80, width=8192, heads=64, shared=8, inner=28672)
LLAMA_405B = Shape(layers=126, width=16384, heads=128, shared=8, inner=53248)


@dataclass(frozen=True, kw_only=True)
class Setting:
    """How it is trained."""

    shape: Shape
    batch: int
    length: int
    compiled: bool = False
    compiled_loss: bool = False
    chunks: int = 1
    """In how many parts the loss is computed."""
    whole_in_float32: bool = False
    """Logits that are not in chunks become float32 before the loss."""
    recompute: Literal["nothing", "layers", "every second product"] = "nothing"
    step_in_backward: bool = False
    offload: bool = False
    """Layer inputs wait in the processor's memory."""
    eight_bit: bool = False
    lora: int = 0
    """The rank."""
    four_bit: bool = False
    divided: int = 1
    """Among so many devices by FSDP."""
    tensor: int = 1
    pipeline: int = 1


class Norm(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(width))

    def forward(self, x: Tensor) -> Tensor:
        exact = x.float()
        normed = (exact * torch.rsqrt(exact.pow(2).mean(-1, keepdim=True) + 1e-5)).type_as(x)
        return normed * self.scale


def turned(x: Tensor, angles: Tensor) -> Tensor:
    """Rotary positions, pairs side by side, in float32."""
    pairs = x.float().reshape(*x.shape[:-1], -1, 2)
    first, second = pairs[..., 0], pairs[..., 1]
    cos, sin = angles[None, :, None, :, 0], angles[None, :, None, :, 1]
    return torch.stack([first * cos - second * sin, second * cos + first * sin], -1).flatten(3).type_as(x)


class Product(nn.Module):
    """A matrix, with an adapter beside it where a rank is given."""

    def __init__(self, inputs: int, outputs: int, rank: int = 0) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(outputs, inputs), requires_grad=not rank)
        self.down = nn.Parameter(torch.empty(rank, inputs)) if rank else None
        self.up = nn.Parameter(torch.empty(outputs, rank)) if rank else None

    def forward(self, x: Tensor) -> Tensor:
        found = F.linear(x, self.weight)
        if self.down is None or self.up is None:
            return found
        return found + 2.0 * F.linear(F.linear(x, self.down), self.up)


class Layer(nn.Module):
    def __init__(self, shape: Shape, rank: int, compiled: bool) -> None:
        super().__init__()
        self.between = fused if compiled else plain
        self.size = shape.width // shape.heads
        self.groups = shape.heads // shape.shared
        narrow = shape.shared * self.size
        self.q, self.v = Product(shape.width, shape.width, rank), Product(shape.width, narrow, rank)
        self.k, self.o = Product(shape.width, narrow), Product(shape.width, shape.width, rank)
        self.gate, self.up = Product(shape.width, shape.inner, rank), Product(shape.width, shape.inner, rank)
        self.down = Product(shape.inner, shape.width, rank)
        self.first, self.second = Norm(shape.width), Norm(shape.width)

    def forward(self, x: Tensor, angles: Tensor) -> Tensor:
        y = self.between(self.first, x)
        query, key, value = (part(y).unflatten(2, (-1, self.size)) for part in (self.q, self.k, self.v))
        query, key = turned(query, angles).transpose(1, 2), turned(key, angles).transpose(1, 2)
        value = value.transpose(1, 2)
        key, value = (part.repeat_interleave(self.groups, 1) for part in (key, value))
        found = F.scaled_dot_product_attention(query, key, value, is_causal=True)
        x = x + self.o(found.transpose(1, 2).contiguous().flatten(2))
        y = self.between(self.second, x)
        return x + self.down(self.between(gated, self.gate(y), self.up(y)))


def gated(gate: Tensor, up: Tensor) -> Tensor:
    return F.silu(gate) * up


def plain(function: Callable[..., Tensor], *inputs: Tensor) -> Tensor:
    return function(*inputs)


def fused(function: Callable[..., Tensor], *inputs: Tensor) -> Tensor:
    """Of what lies between two products only what goes in is kept."""
    return checkpoint(function, *inputs, use_reentrant=False)


class Decoder(nn.Module):
    def __init__(self, shape: Shape, rank: int, compiled: bool = False) -> None:
        super().__init__()
        self.embedding = nn.Parameter(torch.empty(shape.vocabulary, shape.width))
        self.layers = nn.ModuleList(Layer(shape, rank, compiled) for _ in range(shape.layers))
        self.norm = Norm(shape.width)
        self.output = self.embedding if shape.tied else nn.Parameter(torch.empty(shape.vocabulary, shape.width))
        if rank:
            for name, value in self.named_parameters():
                value.requires_grad_(name.endswith((".down", ".up")) and value.shape != () and "weight" not in name)


class FusedLoss(torch.autograd.Function):
    """Cross entropy in one kernel each way: float32 lives in registers, the logits and a number each row are kept."""

    @staticmethod
    def forward(ctx: Any, logits: Tensor, names: Tensor) -> Tensor:
        ctx.save_for_backward(logits, logits.new_empty(len(logits), dtype=torch.float32))
        return logits.new_empty((), dtype=torch.float32)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        return torch.empty_like(ctx.saved_tensors[0]), None


def loss_of(setting: Setting, hidden: Tensor, output: Tensor, targets: Tensor) -> Tensor:
    """Cross entropy of float32 logits."""

    def part(states: Tensor, names: Tensor) -> Tensor:
        logits = F.linear(states, output).flatten(0, 1)
        if setting.compiled_loss:
            return FusedLoss.apply(
                logits.float() if setting.whole_in_float32 and setting.chunks == 1 else logits, names
            )  # pyright: ignore
        return F.cross_entropy(logits.float(), names.flatten())

    parts = zip(hidden.tensor_split(setting.chunks, 1), targets.tensor_split(setting.chunks, 1))
    return torch.stack([part(*both) for both in parts]).sum()


def policy(setting: Setting) -> Callable[[], Any] | None:
    """What the backward pass finds and what it computes again, within a layer; products are counted anew in each pass of each."""
    if setting.recompute == "layers":
        return None

    def contexts() -> Any:
        products = {False: 0, True: 0}

        def choose(context: Any, func: Any, *_args: Any, **_kwargs: Any) -> CheckpointPolicy:
            if func is ATTENTION:
                return CheckpointPolicy.MUST_SAVE
            if func is not aten.mm.default:
                return CheckpointPolicy.PREFER_RECOMPUTE
            products[context.is_recompute] += 1
            odd = products[context.is_recompute] % 2
            return CheckpointPolicy.MUST_SAVE if odd else CheckpointPolicy.PREFER_RECOMPUTE

        return create_selective_checkpoint_contexts(choose)

    return contexts


@contextmanager
def elsewhere() -> Generator[None]:
    """What is kept for the backward pass takes no memory of the card until it is fetched."""

    def away(tensor: Tensor) -> Any:
        return (tensor.shape, tensor.dtype, tensor.new_empty(0))

    def back(kept: Any) -> Tensor:
        shape, dtype, like = kept
        return like.new_empty(shape, dtype=dtype)

    with torch.autograd.graph.saved_tensors_hooks(away, back):
        yield


def followed(setting: Setting) -> Tracer:
    """One step, gradients and states of the optimiser there from the second on."""
    shape = setting.shape
    with building_with("meta"):
        # What is computed again by rule is not chosen by the compiler.
        network = Decoder(shape, setting.lora, setting.compiled and setting.recompute != "every second product")
        network.to(torch.bfloat16)
    use_fake_weights(network)
    angles = torch.zeros(setting.length, shape.width // shape.heads // 2, 2)
    tokens = torch.zeros(setting.batch, setting.length, dtype=torch.int64)
    tracer = Tracer({"weights": list(network.parameters()), "batch": [tokens, angles]})
    handles: list[Any] = []
    for value in network.parameters():
        if value.requires_grad:
            handles.append(value.register_post_accumulate_grad_hook(partial(_gradient, tracer, setting)))
    with tracer:
        tracer.phase = "activations"
        x = F.embedding(tokens, network.embedding)
        if setting.lora:
            x.requires_grad_()
        keep = policy(setting)
        for layer in network.layers:
            if setting.recompute == "nothing":
                x = layer(x, angles)
                continue
            given = {} if keep is None else {"context_fn": keep}
            if setting.offload:
                with elsewhere():
                    x = checkpoint(layer, x, angles, use_reentrant=False, **given)
            else:
                x = checkpoint(layer, x, angles, use_reentrant=False, **given)
        tracer.phase = "loss"
        loss = loss_of(setting, network.norm(x), network.output, tokens)
        tracer.phase = "backward pass"
        loss.backward()
    return tracer


def _gradient(tracer: Tracer, setting: Setting, value: Tensor) -> None:
    if value.grad is not None:
        tracer.made_for(value.grad, "gradients")
        if setting.step_in_backward:
            value.grad = None


def predicted(setting: Setting) -> tuple[float, float]:
    """GiB at the peak, and the range as a share."""
    if setting.divided * setting.tensor * setting.pipeline > 1:
        return divided(setting), DIVIDED
    tracer = followed(setting)
    peak = dict(tracer.peak)
    shape = setting.shape
    with torch.device("meta"):
        network = Decoder(shape, setting.lora)
    count = sum(value.numel() for value in network.parameters())
    trained = sum(value.numel() for value in network.parameters() if value.requires_grad)
    held = weight_bytes(setting, network, count)
    state = trained * (2 * (1 + 4 / 256) if setting.eight_bit else 4)
    others = sum(size for part, size in peak.items() if part != "weights")
    # The optimiser's step itself: all gradients are there, and activations are gone.
    at_the_step = 0.0 if setting.step_in_backward else 2.0 * trained
    return (held + state + max(others, at_the_step)) / GIB, STANDS_IN if stands_in(setting) else FOLLOWED


def stands_in(setting: Setting) -> bool:
    return setting.compiled or setting.eight_bit or setting.four_bit


def weight_bytes(setting: Setting, network: nn.Module, count: int) -> float:
    """The base's matrices in four bits where that is asked for, the rest in bfloat16."""
    if not setting.four_bit:
        return 2.0 * count
    matrices = sum(value.numel() for name, value in network.named_parameters() if name.endswith("weight"))
    return matrices * (0.5 + 1 / 64 + 4 / (64 * 256)) + 2.0 * (count - matrices)


def divided(setting: Setting) -> float:
    """GiB on one of several devices, as its allocator holds them.

    What all hold is divided; what a step makes is followed on two depths of the network, which say what a layer takes and what the
    ends do, and divided by the degree of tensor parallelism; but for what a layer's products read and give, which each
    device has whole (Korthikanti et al. 2022, "Reducing activation recomputation", section 4.2.2).
    """
    shape = setting.shape
    with torch.device("meta"):
        network = Decoder(shape, 0)
    count = sum(value.numel() for value in network.parameters())
    held = 16.0 * count / (setting.divided * setting.tensor * setting.pipeline)  # float32: weight, gradient, two states
    layer = sum(value.numel() for value in network.layers[0].parameters())
    ends = shape.vocabulary * shape.width
    micro = setting.batch // setting.pipeline
    whole = 3 * 2.0 * micro * setting.length * shape.width if setting.tensor > 1 else 0.0
    low, high = (_step(setting, depth, micro) for depth in (2, 4))
    each, rest = (high - low) / 2, low - (high - low)
    depth = -(-shape.layers // setting.pipeline)
    if setting.pipeline == 1:
        # Two layers in bfloat16, the one before and this one, an end, and a layer's gradient on its way.
        gathered = 2.0 * (2 * layer + ends) + 4.0 * layer
        made = depth * each + rest
    else:
        # A stage stays gathered until its last micro-batch (torchtitan: reshard_after_forward is off), and so do its gradients, in
        # the type in which they are summed (PyTorch's fully_shard: to_accumulated_grad_if_needed).
        gathered = (2.0 + 4.0) * (depth * layer + ends)
        made = setting.pipeline * depth * each + one_layer(setting, micro)
    return RESERVED * (held + whole + (gathered + made) / setting.tensor) / GIB


def _step(setting: Setting, depth: int, micro: int) -> float:
    """Bytes that a step of so many layers makes at its peak, weights and gradients not counted."""
    shape = replace(setting.shape, layers=depth)
    small = replace(setting, shape=shape, batch=micro, step_in_backward=True)
    peak = followed(small).peak
    return float(sum(size for part, size in peak.items() if part not in ("weights", "gradients")))


def one_layer(setting: Setting, micro: int) -> float:
    """What a layer makes when it is computed again, beyond its input."""
    with building_with("meta"):
        layer = Layer(setting.shape, 0, setting.compiled).to(torch.bfloat16)
    use_fake_weights(layer)
    angles = torch.zeros(setting.length, setting.shape.width // setting.shape.heads // 2, 2)
    tracer = Tracer({"weights": list(layer.parameters())})
    with tracer:
        tracer.phase = "layer"
        weight = next(layer.parameters())
        x = weight.new_empty(micro, setting.length, setting.shape.width, requires_grad=True)
        layer(x, angles).sum().backward()
    return float(tracer.peak["layer"])


# torchtune's decoder makes whole logits float32 itself and leaves those in chunks to the loss (torchtune/modules/transformer.py, unembed).
TUNE = partial(Setting, shape=LLAMA_3B, batch=2, length=4096, whole_in_float32=True)
# torchtitan did not compile its loss then (train.py: "compiling loss function causes CUDA errors, turning off for now").
TITAN = partial(Setting, shape=LLAMA_8B, batch=2, length=8192, recompute="every second product")
LORA = partial(TUNE, compiled=True, compiled_loss=True, chunks=8, recompute="layers", offload=True, lora=64)
ROWS: list[tuple[str, float, Setting]] = [
    ("torchtune 3B, packed", 60.0, TUNE()),
    ("+ compiled", 51.0, TUNE(compiled=True, compiled_loss=True)),
    ("+ loss in chunks", 42.9, TUNE(compiled=True, compiled_loss=True, chunks=8)),
    ("+ layers computed again", 24.9, TUNE(compiled=True, compiled_loss=True, chunks=8, recompute="layers")),
    (
        "+ step in the backward pass",
        23.1,
        TUNE(compiled=True, compiled_loss=True, chunks=8, recompute="layers", step_in_backward=True),
    ),
    (
        "+ layer inputs elsewhere",
        21.8,
        TUNE(compiled=True, compiled_loss=True, chunks=8, recompute="layers", step_in_backward=True, offload=True),
    ),
    (
        "+ 8-bit Adam",
        17.6,
        TUNE(
            compiled=True,
            compiled_loss=True,
            chunks=8,
            recompute="layers",
            step_in_backward=True,
            offload=True,
            eight_bit=True,
        ),
    ),
    ("LoRA", 8.5, LORA()),
    ("QLoRA", 4.6, LORA(four_bit=True)),
    ("torchtitan 8B on 8", 82.4, TITAN(divided=8)),
    ("+ compiled", 77.0, TITAN(divided=8, compiled=True)),
    ("8B on 128", 67.0, TITAN(divided=128)),
    ("+ compiled", 62.0, TITAN(divided=128, compiled=True)),
    (
        "70B on 256",
        71.9,
        Setting(shape=LLAMA_70B, batch=16, length=8192, compiled=True, recompute="layers", divided=32, tensor=8),
    ),
    (
        "405B on 512",
        82.5,
        Setting(
            shape=LLAMA_405B, batch=32, length=8192, compiled=True, recompute="layers", divided=8, tensor=8, pipeline=8
        ),
    ),
]


def main() -> None:
    rows: list[dict[str, Any]] = []
    lines = ["| training | published, GiB | predicted, GiB | off by | range | within |", "|---|---:|---:|---:|---|---|"]
    for name, published, setting in ROWS[:1] if QUICK else ROWS:
        found, share = predicted(setting)
        low, high = found / (1 + share), found * (1 + share)
        rows.append(
            {
                "name": name,
                "published": published,
                "predicted": found,
                "range": share,
                "inside": low <= published <= high,
            }
        )
        lines.append(
            f"| {name} | {published} | {found:.1f} | {100 * (found / published - 1):+.0f} % "
            f"| {low:.1f} to {high:.1f} | {'yes' if rows[-1]['inside'] else 'NO'} |"
        )
        print(lines[-1], flush=True)
    (RESULTS / "published_memory.md").write_text("# Published memory, and planning\n\n" + "\n".join(lines) + "\n")
    (RESULTS / "published_memory.json").write_text(json.dumps(rows, indent=1) + "\n")


if __name__ == "__main__":
    main()
