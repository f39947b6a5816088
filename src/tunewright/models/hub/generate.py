"""Write on from a text, token by token: the likeliest each time, or one drawn by its probability."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from tunewright.models.core.network import evaluating
from tunewright.models.hub.hf_network import Transformer
from tunewright.random import uniform


@dataclass(frozen=True, kw_only=True)
class Sampling:
    """Say how each token is chosen."""

    temperature: float = 0.0
    """0: always the likeliest; else the logits are divided by it and a token is drawn."""
    top_k: int | None = None
    """Draw from the so many likeliest alone."""
    top_p: float = 1.0
    """Draw from the likeliest that have this probability together (Holtzman et al. 2020, section 3.1)."""
    seed: int = 0


GREEDY = Sampling()


def generate(
    network: Transformer,
    ids: list[int],
    *,
    end: Collection[int],
    most: int,
    context: int,
    sampling: Sampling = GREEDY,
) -> Iterator[int]:
    """Yield the tokens that the network writes after `ids`, each as soon as it is chosen.

    What was read is kept, so that a token costs one pass of one token. Where the context is full, its older half is
    forgotten and the rest read again.

    Args:
        end: tokens that end the text; they are not given.
        most: how many tokens at most.
        context: tokens that the network reads at once.
    """
    known = list(ids[-context:])
    cache: Any = None
    fresh = known
    for number in range(most):
        with evaluating(network), torch.inference_mode():
            logits, cache = read(network, fresh, cache)
        (drawn,) = uniforms(sampling.seed, number, 1)
        draw = Draw(temperature=sampling.temperature, top_k=sampling.top_k, top_p=sampling.top_p, uniform=drawn)
        (token,) = choose(logits[None], [draw])
        if token in end:
            return
        yield token
        known.append(token)
        if len(known) >= context:
            known, cache = known[-(context // 2) :], None
        fresh = known if cache is None else [token]


def read(network: Transformer, ids: list[int], cache: Any) -> tuple[Tensor, Any]:
    """Read the logits [V] after the last of `ids`, float32, and the cache with all that was read so far; None: it keeps none.

    Args:
        cache: of the tokens before; None: there are none.
    """
    tokens = torch.tensor([ids], device=next(network.parameters()).device)
    found = network.model(input_ids=tokens, cache=cache, use_cache=True)
    return found.logits[0, -1].float(), getattr(found, "cache", None)


@dataclass(frozen=True, kw_only=True)
class Draw:
    """How the next token of one text is chosen."""

    temperature: float
    top_k: int | None = None
    top_p: float
    uniform: float
    """A random number in [0, 1), one of `uniforms`."""


def uniforms(seed: int, first: int, count: int) -> list[float]:
    """Random numbers in [0, 1) for the choice of a text's tokens `first`, `first + 1`, …; each depends on its place alone."""
    return uniform(seed, "generate", 0, np.arange(first, first + count), 1)[:, 0].tolist()


def choose(logits: Tensor, draws: list[Draw]) -> list[int]:
    """Return the next token of each of B texts, from its logits [B, V]; those of one text do not depend on the others."""
    likeliest = logits.argmax(1).tolist()
    temperatures = torch.tensor([draw.temperature or 1.0 for draw in draws], device=logits.device)
    scaled = logits / temperatures[:, None]
    # A temperature can be so low that the division overflows.
    finite = scaled.amax(1).isfinite().tolist()
    rows = [row for row, draw in enumerate(draws) if draw.temperature and finite[row]]
    if not rows:
        return likeliest
    drawn = [draws[row] for row in rows]
    if len(rows) < len(draws):
        scaled = scaled[rows]
    ordered, names = scaled.softmax(1).sort(1, descending=True)
    shares = torch.tensor([draw.top_p for draw in drawn], device=logits.device)
    below = ordered.cumsum(1) - ordered < shares[:, None]
    for row, draw in enumerate(drawn):
        if draw.top_k is not None:
            below[row, draw.top_k :] = False
    kept = (ordered * below).double().cumsum(1)
    numbers = torch.tensor([draw.uniform for draw in drawn], dtype=torch.float64, device=logits.device)
    places = (kept <= (numbers * kept[:, -1])[:, None]).sum(1).clamp(max=logits.shape[1] - 1)
    for row, token in zip(rows, names.gather(1, places[:, None])[:, 0].tolist()):
        likeliest[row] = token
    return likeliest
