"""Several texts written at once: each step reads one new token of every text, and texts join and leave between steps.

A text joins with the key-value cache of its prompt, which was read alone. Where the architecture allows it, the caches lie in
one tensor per layer, a row for each text, filled from the left to a length of its own; a step is then one pass of the network
for all rows. Each row has its own positions, and a mask hides what lies beyond its length.

Caches that cannot lie in such rows (recurrent states, sliding windows) stay separate, and a step is one pass for each text.
"""

from __future__ import annotations

import inspect
from typing import Any, Protocol

import torch
from torch import Tensor
from transformers import Cache
from transformers.cache_utils import DynamicLayer

from tunewright.models.hub.generate import read
from tunewright.models.hub.hf_network import Transformer

# Tokens that a new cache has room for; it doubles when it is full.
FIRST_ROOM = 64


class DecodingBatch(Protocol):
    """Texts that are written together, in rows 0 … B − 1."""

    in_parts: bool
    """Whether a prompt may be read in parts."""

    def join(self, cache: Any, ids: list[int]) -> None:
        """Add a text as the last row; `cache` is what `read` made of all its tokens so far."""
        ...

    def leave(self, row: int) -> None:
        """Remove a text; the last row takes its place."""
        ...

    def step(self, tokens: list[int]) -> Tensor:
        """Return the logits [B, V], float32, after one new token of each row."""
        ...


def decoding_batch(network: Transformer, context: int) -> DecodingBatch:
    """One cache for all texts if the network then computes what it computes for each text alone; else separate caches.

    Args:
        context: tokens that the network reads at once.
    """
    try:
        if _computes_the_same(network, context):
            return SharedCache(network)
    except Exception:  # of whatever kind: other architectures raise what they like at what they do not know
        pass
    return SeparateCaches(network)


class SeparateCaches:
    """A cache for each text, and a pass for each."""

    in_parts = False

    def __init__(self, network: Transformer) -> None:
        self.network = network
        self.texts: list[tuple[Any, list[int]]] = []

    def join(self, cache: Any, ids: list[int]) -> None:
        self.texts.append((cache, list(ids)))

    def leave(self, row: int) -> None:
        self.texts[row] = self.texts[-1]
        self.texts.pop()

    def step(self, tokens: list[int]) -> Tensor:
        found: list[Tensor] = []
        for row, token in enumerate(tokens):
            cache, ids = self.texts[row]
            ids.append(token)
            logits, cache = read(self.network, ids if cache is None else [token], cache)
            self.texts[row] = (cache, ids)
            found.append(logits)
        return torch.stack(found)


class SharedCache:
    """One cache for all texts, and one pass for all."""

    in_parts = True

    def __init__(self, network: Transformer) -> None:
        self.network = network
        self.device = next(network.parameters()).device
        self.lengths: list[int] = []
        self.layers: list[_Rows] = []
        takes = inspect.signature(network.core.forward).parameters
        self.takes_positions = "position_ids" in takes

    def join(self, cache: Any, ids: list[int]) -> None:
        if not self.lengths:  # dropped when the last text left, so that an idle service holds no memory
            self.layers = [_Rows() for _ in cache.layers]
        for rows, layer in zip(self.layers, cache.layers):
            rows.put(len(self.lengths), layer.keys, layer.values)
        self.lengths.append(len(ids))

    def leave(self, row: int) -> None:
        last = len(self.lengths) - 1
        for rows in self.layers:
            rows.move(last, row)
        self.lengths[row] = self.lengths[last]
        self.lengths.pop()
        if not self.lengths:
            self.layers = []

    def step(self, tokens: list[int]) -> Tensor:
        longest = max(self.lengths)
        places = torch.tensor(self.lengths, device=self.device)
        for rows in self.layers:
            rows.expect(places, longest)
        inputs: dict[str, Any] = {}
        if min(self.lengths) < longest:
            inputs["attention_mask"] = torch.arange(longest + 1, device=self.device) <= places[:, None]
        if self.takes_positions:
            inputs["position_ids"] = places[:, None]
        ids = torch.tensor(tokens, device=self.device)[:, None]
        found = self.network.model(input_ids=ids, cache=Cache(layers=list(self.layers)), use_cache=True, **inputs)
        self.lengths = [length + 1 for length in self.lengths]
        return found.logits[:, -1].float()


class _Rows(DynamicLayer):
    """Keys and values of one layer, [rows, H, room, K] each, as a layer of the library's cache."""

    def put(self, row: int, keys: Tensor, values: Tensor) -> None:
        """Fill a row with the keys and values [1, H, T, K] of a text."""
        self.is_initialized = True
        length = keys.shape[2]
        self.keys = _with_room(self.keys, row + 1, length + 1, keys)
        self.values = _with_room(self.values, row + 1, length + 1, values)
        for held, new in ((self.keys, keys), (self.values, values)):
            held[row, :, :length] = new[0]
            held[row, :, length:] = 0  # a mask hides what lies there, but does not hide NaN

    def move(self, old: int, new: int) -> None:
        """Put a row in the place of another."""
        if old != new:
            assert self.keys is not None and self.values is not None
            self.keys[new] = self.keys[old]
            self.values[new] = self.values[old]

    def expect(self, places: Tensor, longest: int) -> None:
        """Make room for one new token of each row, at its place [B]."""
        assert self.keys is not None and self.values is not None
        self.keys = _with_room(self.keys, len(places), longest + 1, self.keys)
        self.values = _with_room(self.values, len(places), longest + 1, self.values)
        self.places, self.longest = places, longest
        self.rows = torch.arange(len(places), device=places.device)

    def update(self, key_states: Tensor, value_states: Tensor, *_: Any, **__: Any) -> tuple[Tensor, Tensor]:
        assert self.keys is not None and self.values is not None
        self.keys[self.rows, :, self.places] = key_states[:, :, 0]
        self.values[self.rows, :, self.places] = value_states[:, :, 0]
        count = len(self.rows)
        return self.keys[:count, :, : self.longest + 1], self.values[:count, :, : self.longest + 1]

    def get_seq_length(self) -> int:
        return self.longest

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        return self.longest + query_length, 0


def _with_room(held: Tensor | None, rows: int, length: int, like: Tensor) -> Tensor:
    """Return the same, at least [rows, H, length, K]; what is new is 0."""
    if held is None:
        return like.new_zeros(rows, like.shape[1], max(length, FIRST_ROOM), like.shape[3])
    if held.shape[0] >= rows and held.shape[2] >= length:
        return held
    size = (
        held.shape[0] if held.shape[0] >= rows else max(rows, 2 * held.shape[0]),
        held.shape[2] if held.shape[2] >= length else max(length, 2 * held.shape[2]),
    )
    found = held.new_zeros(size[0], held.shape[1], size[1], held.shape[3])
    found[: held.shape[0], :, : held.shape[2]] = held
    return found


@torch.inference_mode()
def _computes_the_same(network: Transformer, context: int) -> bool:
    """Return whether two texts of different lengths, one of them read in parts, have the same logits together as each alone.

    The longer one is longer than any attention window that the model's settings name, so that a window is noticed.
    """
    settings = network.core.config.to_dict()
    windows = [value for name, value in settings.items() if "window" in name and type(value) is int]
    long = min(context - 1, max(16, *windows, 0) + 8)
    if long < 4:
        return False
    size = network.core.config.get_text_config().vocab_size
    texts = [[(7 * place + 1) % size for place in range(length)] for length in (long // 3, long)]
    alone: list[Tensor] = []
    together = SharedCache(network)
    for ids in texts:
        _, cache = read(network, ids, None)
        if not all(type(layer) is DynamicLayer and layer.keys is not None for layer in cache.layers):
            return False
        logits, _ = read(network, [2 % size], cache)
        alone.append(logits)
        _, cache = read(network, ids[: len(ids) // 2], None)
        _, cache = read(network, ids[len(ids) // 2 :], cache)
        together.join(cache, ids)
    expected, found = torch.stack(alone), together.step([2 % size] * 2)
    tolerance = torch.finfo(next(network.parameters()).dtype).eps ** 0.5 * float(expected.abs().max())
    return bool(((found - expected).abs() <= tolerance).all())
