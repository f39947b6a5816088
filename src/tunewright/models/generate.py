"""Write on from a text, token by token: the likeliest each time, or one drawn by its probability."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor

from tunewright.models.network import evaluating
from tunewright.models.transformer import Transformer
from tunewright.random import uniform


def generate(
    network: Transformer,
    ids: list[int],
    *,
    end: Collection[int],
    most: int,
    context: int,
    temperature: float = 0.0,
    top_k: int | None = None,
    top_p: float = 1.0,
    seed: int = 0,
) -> Iterator[int]:
    """The tokens that the network writes after `ids`, each as soon as it is chosen.

    What was read is kept, so that a token costs one pass of one token. Where the context is full, its older half is
    forgotten and the rest read again.

    Args:
        end: tokens that end the text; they are not given.
        most: how many tokens at most.
        context: tokens that the network reads at once.
        temperature: 0: always the likeliest; else the logits are divided by it and a token is drawn.
        top_k: draw from the so many likeliest alone.
        top_p: draw from the likeliest that have this probability together (Holtzman et al. 2020, section 3.1).
    """
    known = list(ids[-context:])
    cache: Any = None
    fresh = known
    for number in range(most):
        with evaluating(network), torch.inference_mode():
            logits, cache = read(network, fresh, cache)
        token = choose(logits, temperature, top_k, top_p, seed, number)
        if token in end:
            return
        yield token
        known.append(token)
        if len(known) >= context:
            known, cache = known[-(context // 2) :], None
        fresh = known if cache is None else [token]


def read(network: Transformer, ids: list[int], cache: Any) -> tuple[Tensor, Any]:
    """The logits [V] after the last of `ids`, float32, and the cache with all that was read so far; None: it keeps none.

    Args:
        cache: of the tokens before; None: there are none.
    """
    tokens = torch.tensor([ids], device=next(network.parameters()).device)
    found = network.model(input_ids=tokens, cache=cache, use_cache=True)
    return found.logits[0, -1].float(), getattr(found, "cache", None)


def choose(logits: Tensor, temperature: float, top_k: int | None, top_p: float, seed: int, number: int) -> int:
    """The next token: drawn from the logits [V] by a random number that depends on `seed` and `number` alone.

    Args:
        number: how many tokens were chosen before.
    """
    if temperature == 0:
        return int(logits.argmax())
    scaled = logits / temperature
    if not scaled.max().isfinite():  # a temperature so low that the division overflows
        return int(logits.argmax())
    ordered, names = scaled.softmax(0).sort(descending=True)
    below = ordered.cumsum(0) - ordered < top_p
    if top_k is not None:
        below[top_k:] = False
    kept = (ordered * below).double().cumsum(0)
    draw = float(uniform(seed, "generate", 0, np.array([number]), 1)[0, 0]) * float(kept[-1])
    return int(names[min(int((kept <= draw).sum()), len(names) - 1)])
