"""The frozen beginning of a network: its output is taken once for each example and put back in its place afterwards.

Any architecture is cut in the same way, from outside: a pass is stopped behind the last frozen block and that block's
output is kept; later the same pass is made with the frozen blocks replaced by ones that return what was kept. What lies
between blocks, such as attention masks, is computed as always.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
import torch.utils._pytree as pytree
from torch import Tensor, nn

from tunewright.models.core.meta_weights import is_meta
from tunewright.models.core.network import Block, Inputs, Network, evaluating
from tunewright.models.hub.hf_network import Transformer

# What a configuration says of the head: with another head the frozen blocks give the same.
OF_THE_HEAD = ("id2label", "label2id", "num_labels", "problem_type")
# The names of kept outputs among a batch's inputs, and of the input of a network that takes one tensor.
KEPT = "kept."
PLAIN = "inputs"


@dataclass(frozen=True, kw_only=True)
class Slot:
    """One tensor of the output of the last frozen block."""

    shape: tuple[int, ...]
    """Of one example when it was first seen; for texts the first size may vary."""
    dtype: torch.dtype
    by_token: bool
    """The first size is the number of the text's tokens."""
    keep: Literal["all", "first", "nothing"]
    """What the rest of the network reads of it: all, the first token alone (BERT's [CLS]), or nothing."""

    @property
    def kept_shape(self) -> tuple[int, ...]:
        """Of what is kept: of one token where each token is kept, else of one example."""
        return self.shape[1:] if self.by_token or self.keep == "first" else self.shape

    def blank(self, count: int, length: int | None) -> Tensor:
        """Return [count, *shape] of zeros, without memory: for what is not read."""
        shape = (length, *self.shape[1:]) if self.by_token and length is not None else self.shape
        return torch.zeros((), dtype=self.dtype).expand(count, *shape)


@dataclass(frozen=True, kw_only=True)
class _Output:
    """How a module's output is put together from tensors."""

    module: nn.Module
    structure: Any
    leaves: list[Slot | Any]
    """A slot for each tensor with a row for each example; anything else as it is."""


@dataclass(frozen=True, kw_only=True)
class Prefix:
    """Where a network is cut."""

    blocks: list[Block]
    """The frozen blocks, from the input."""
    outputs: list[_Output]
    """Of the modules that are replaced, in order; what is kept is the last one's."""

    @property
    def slots(self) -> list[Slot]:
        """What is kept for each example."""
        return [leaf for leaf in self.outputs[-1].leaves if isinstance(leaf, Slot) and leaf.keep != "nothing"]

    def fingerprint(self, network: Network) -> str:
        """Return the SHA-256 of all that the kept outputs depend on, but the examples."""
        architecture = network.spec.architecture()
        shape = {key: value for key, value in architecture.items() if key not in OF_THE_HEAD}
        facts = (torch.__version__, self.slots, shape, getattr(network, "reduced", False))
        digest = hashlib.sha256(repr(facts).encode())
        for block in self.blocks:
            for name, value in block.module.state_dict().items():
                digest.update(f"{block.name} {name} {value.dtype} {tuple(value.shape)}".encode())
                digest.update(value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
        return digest.hexdigest()


def frozen_blocks(network: Network, still: set[str]) -> list[Block]:
    """Return the blocks at the network's beginning that are all among `still`, the titles of blocks that never move."""
    found: list[Block] = []
    for block in network.blocks():
        if block.part != "backbone" or block.title not in still:
            break
        found.append(block)
    return found


def cut(network: Network, blocks: list[Block], inputs: Inputs, tolerance: float) -> Prefix | None:
    """Cut the network behind `blocks`; None where the rest cannot be computed from their output alone.

    Args:
        inputs: a few real examples, for which both ways are compared.
        tolerance: how far the outputs may lie apart, relative to 1 + their size.
    """
    whole = len(blocks) == sum(block.part == "backbone" for block in network.blocks())
    modules = [network.base] if whole and isinstance(network, Transformer) else [block.module for block in blocks]
    with evaluating(network), torch.no_grad():
        expected, outputs = _observe(network, modules, inputs)
        if not outputs:
            return None
        prefix = Prefix(blocks=blocks, outputs=outputs)
        full = _tensors(outputs[-1], _run_until(network, outputs[-1].module, inputs))
        if any(map(is_meta, full)):
            return _looked_through(network, prefix, inputs, full)
        for index, leaf in enumerate(outputs[-1].leaves):
            if isinstance(leaf, Slot):
                prefix = _narrowed(network, prefix, index, inputs, full, expected)
        kept = [_reduce(slot, full[i]) for i, slot in enumerate(_slots(prefix.outputs[-1])) if slot.keep != "nothing"]
        if not kept:
            return None
        found = AfterPrefix(network, prefix)(as_inputs(inputs, kept))
    same = bool(((found - expected).abs() <= tolerance * (1 + expected.abs())).all())
    return prefix if same else None


def _looked_through(network: Network, prefix: Prefix, inputs: Inputs, full: list[Tensor]) -> Prefix:
    """Without numbers there is nothing to compare: what the output has a gradient of is read, and kept whole."""
    with torch.enable_grad():
        given = [value.detach().requires_grad_(value.is_floating_point()) for value in full]
        found = AfterPrefix(network, prefix)(as_inputs(inputs, given))
        wanted = [value for value in given if value.requires_grad]
        read = {id(value) for value, slope in zip(wanted, _slopes(found, wanted)) if slope is not None}
    for index, leaf in enumerate(prefix.outputs[-1].leaves):
        if isinstance(leaf, Slot):
            position = sum(isinstance(before, Slot) for before in prefix.outputs[-1].leaves[:index])
            if given[position].requires_grad and id(given[position]) not in read:
                prefix = _with_slot(prefix, index, replace(leaf, keep="nothing"))
    return prefix


def _slopes(found: Tensor, wanted: list[Tensor]) -> Sequence[Tensor | None]:
    return torch.autograd.grad(found.sum(), wanted, allow_unused=True)


def outputs_of(network: Network, prefix: Prefix, inputs: Inputs) -> list[Tensor]:
    """Return what is kept of a batch: for each of `prefix.slots` a tensor [B, …]."""
    last = prefix.outputs[-1]
    tensors = _tensors(last, _run_until(network, last.module, inputs))
    return [_reduce(slot, tensors[i]) for i, slot in enumerate(_slots(last)) if slot.keep != "nothing"]


def as_inputs(inputs: Inputs, kept: list[Tensor]) -> dict[str, Tensor]:
    """Return a batch's inputs with what was kept of its examples."""
    plain = {PLAIN: inputs} if isinstance(inputs, Tensor) else inputs
    return {**plain, **{f"{KEPT}{index}": value for index, value in enumerate(kept)}}


class AfterPrefix(nn.Module):
    """The network, computed from what was kept where a batch brings it, and as always where it does not."""

    def __init__(self, network: Network, prefix: Prefix) -> None:
        super().__init__()
        self.network = network
        self.prefix = prefix

    def forward(self, inputs: Inputs) -> Tensor:
        if isinstance(inputs, Tensor):
            return self.network(inputs)
        kept = {name: value for name, value in inputs.items() if name.startswith(KEPT)}
        rest = {name: value for name, value in inputs.items() if name not in kept}
        plain = rest.get(PLAIN, rest)
        if not kept:
            return self.network(plain)
        with _replaced(self.prefix, [kept[f"{KEPT}{i}"] for i in range(len(kept))], _length(plain)):
            return self.network(plain)


@contextmanager
def _replaced(prefix: Prefix, kept: list[Tensor], length: int | None) -> Generator[None]:
    """The frozen blocks return blanks, the last one what was kept."""
    count, device = kept[0].shape[0], kept[0].device
    for output in prefix.outputs:
        values = iter(kept)
        leaves = [
            leaf
            if not isinstance(leaf, Slot)
            else leaf.blank(count, length).to(device)
            if output is not prefix.outputs[-1] or leaf.keep == "nothing"
            else _expanded(leaf, next(values))
            for leaf in output.leaves
        ]
        returned = pytree.tree_unflatten(leaves, output.structure)
        output.module.forward = _returning(returned)
    try:
        yield
    finally:
        for output in prefix.outputs:
            del output.module.forward  # the class's own is found again


def _returning(value: Any) -> Callable[..., Any]:
    return lambda *_args, **_kwargs: value


def _expanded(slot: Slot, value: Tensor) -> Tensor:
    return value.unsqueeze(1) if slot.keep == "first" else value


def _reduce(slot: Slot, value: Tensor) -> Tensor:
    return value[:, 0] if slot.keep == "first" else value


def _slots(output: _Output) -> list[Slot]:
    return [leaf for leaf in output.leaves if isinstance(leaf, Slot)]


def _tensors(output: _Output, value: Any) -> list[Tensor]:
    """Return the tensors of a module's output that have a slot."""
    flat, _ = pytree.tree_flatten(value)
    return [tensor for tensor, leaf in zip(flat, output.leaves, strict=True) if isinstance(leaf, Slot)]


def _length(inputs: Inputs) -> int | None:
    """Return the padded length of a batch of texts; None for other inputs."""
    return None if isinstance(inputs, Tensor) else next(iter(inputs.values())).shape[1]


def _observe(network: Network, modules: list[nn.Module], inputs: Inputs) -> tuple[Tensor, list[_Output]]:
    """One plain pass: its outputs, and how each module's output is put together."""
    count, length = len(next(iter(inputs.values()))) if isinstance(inputs, dict) else len(inputs), _length(inputs)
    seen: dict[int, _Output] = {}

    def note(module: nn.Module, _inputs: Any, value: Any) -> None:
        flat, structure = pytree.tree_flatten(value)
        leaves = [
            Slot(
                shape=tuple(leaf.shape[1:]),
                dtype=leaf.dtype,
                by_token=length is not None and leaf.dim() > 1 and leaf.shape[1] == length,
                keep="all",
            )
            if isinstance(leaf, Tensor) and leaf.dim() > 0 and leaf.shape[0] == count
            else leaf
            for leaf in flat
        ]
        seen[id(module)] = _Output(module=module, structure=structure, leaves=leaves)

    hooks = [module.register_forward_hook(note) for module in modules]
    try:
        expected = network(inputs)
    finally:
        for hook in hooks:
            hook.remove()
    # A block that is never called itself, such as a table of positions or a list of layers, has nothing to replace.
    return expected, [seen[id(module)] for module in modules if id(module) in seen]


def _narrowed(
    network: Network, prefix: Prefix, index: int, inputs: Inputs, full: list[Tensor], expected: Tensor
) -> Prefix:
    """Return the prefix with one slot cut down to what the rest of the network reads of it."""
    last = prefix.outputs[-1]
    slot = last.leaves[index]
    position = sum(isinstance(leaf, Slot) for leaf in last.leaves[:index])
    # Rubbish in the place of what is not read changes nothing.
    rubbish = full[position].clone().fill_(torch.nan if full[position].is_floating_point() else 1)
    if _gives(network, prefix, inputs, full, position, rubbish, expected):
        return _with_slot(prefix, index, replace(slot, keep="nothing"))
    if full[position].dim() == 3 and _gives(
        network, prefix, inputs, full, position, full[position][:, :1].contiguous(), expected
    ):
        return _with_slot(prefix, index, replace(slot, keep="first"))
    return prefix


def _gives(
    network: Network,
    prefix: Prefix,
    inputs: Inputs,
    full: list[Tensor],
    position: int,
    value: Tensor,
    expected: Tensor,
) -> bool:
    """Return whether the same comes out with another value for one of the kept tensors."""
    every = [_kept_whole(leaf) for leaf in prefix.outputs[-1].leaves]
    whole = Prefix(blocks=prefix.blocks, outputs=[*prefix.outputs[:-1], replace(prefix.outputs[-1], leaves=every)])
    values = [value if i == position else tensor for i, tensor in enumerate(full)]
    try:
        found = AfterPrefix(network, whole)(as_inputs(inputs, values))
    except (RuntimeError, ValueError, IndexError):
        return False  # it reads the other positions' shape
    return found.shape == expected.shape and bool(torch.allclose(found, expected, rtol=1e-5, atol=1e-6))


def _kept_whole(leaf: Slot | Any) -> Slot | Any:
    """Return the same slot, kept in full."""
    return replace(leaf, keep="all") if isinstance(leaf, Slot) else leaf


def _with_slot(prefix: Prefix, index: int, slot: Slot) -> Prefix:
    last = prefix.outputs[-1]
    leaves = [slot if i == index else leaf for i, leaf in enumerate(last.leaves)]
    return Prefix(blocks=prefix.blocks, outputs=[*prefix.outputs[:-1], replace(last, leaves=leaves)])


class _Reached(Exception):
    """The last frozen block has been computed; the rest of the pass is not wanted."""

    def __init__(self, value: Any) -> None:
        self.value = value


def _run_until(network: Network, module: nn.Module, inputs: Inputs) -> Any:
    """Return the output of a module in a pass of the network, which ends there."""

    def stop(_module: nn.Module, _inputs: Any, value: Any) -> None:
        raise _Reached(value)

    hook = module.register_forward_hook(stop)
    try:
        network(inputs)
    except _Reached as reached:
        return reached.value
    finally:
        hook.remove()
    raise AssertionError("a block of the network was not reached by a pass")
