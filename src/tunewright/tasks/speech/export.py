"""The export case of a model that writes a transcript token by token."""

from __future__ import annotations

from collections.abc import Callable

import torch

from tunewright.models.speech.whisper import Whisper
from tunewright.tasks.base.export_case import DICTATED_AT_ONCE, HandedOn, Named, Trial
from tunewright.tasks.speech.evaluation import MOST_TOKENS


def export_seq2seq(network: Whisper, count: int, batch: Callable[[list[int]], Named]) -> Trial:
    """Recordings, each with what the network writes of it by itself: if every next token of that is the same, so is the whole text."""
    written: list[list[int]] = []
    with torch.no_grad():
        for ids in torch.arange(count).split(DICTATED_AT_ONCE):
            written += network.dictate(batch(ids.tolist()), MOST_TOKENS)
    start, end = network.facts["start"], network.facts["end"]

    def with_tokens(ids: list[int]) -> Named:
        longest = max(1, *(len(written[index]) for index in ids))
        rows = [[*start, *written[index], *[end] * (longest - len(written[index]))] for index in ids]
        return {**batch(ids), "tokens": torch.tensor(rows)}

    free = {"features": [0, 1], "lengths": [0], "tokens": [0, 1]}
    return Trial(module=HandedOn(network, list(free)), count=count, batch=with_tokens, target=None, axes=free)
