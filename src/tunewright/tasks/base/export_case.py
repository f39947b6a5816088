"""What a model is outside of Tunewright: tensors in, tensors out, by name; and real tensors to try it with."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor, nn

from tunewright.data.batches.sampler import Examples
from tunewright.models.core.network import AnyNetwork
from tunewright.models.hub.hf_network import Transformer
from tunewright.models.recommendation.base import Recommender
from tunewright.models.speech.whisper import Whisper
from tunewright.tasks.base.task import Preprocessor
from tunewright.tasks.language_model.chat_encoder import TalkEncoder
from tunewright.tasks.language_model.encoder import CausalEncoder
from tunewright.tasks.speech.evaluation import MOST_TOKENS

# Inputs by name, and what they are called where there is one tensor.
Named = dict[str, Tensor]
# Of each input, by name, the axes whose size a caller chooses.
Free = dict[str, list[int]]
SINGLE = "inputs"
DICTATED_AT_ONCE = 8


class HandedOn(nn.Module):
    """A network whose inputs are tensors in a fixed order."""

    def __init__(self, network: AnyNetwork, names: list[str]) -> None:
        super().__init__()
        self.network = network
        self.names = names

    def forward(self, *values: Tensor) -> Tensor:
        """Logits [B, K], [B, T, V] or [B, S, K]; of a recommender the scores of all items [B, I]."""
        if isinstance(self.network, Recommender):
            return self.network.all_scores(values[0], values[1] if len(values) > 1 else None)
        return self.network(values[0] if self.names == [SINGLE] else dict(zip(self.names, values)))


@dataclass(frozen=True, kw_only=True)
class Trial:
    """A network as it is handed on, and examples that it is tried with."""

    module: HandedOn
    count: int
    """Examples."""
    batch: Callable[[list[int]], Named]
    """The examples at these positions."""
    target: Tensor | None
    """[count], where there is a target."""
    tokenizer: Any = None
    """Of a language model."""
    axes: Free | None = None
    """Of each input the axes in which examples may differ; None: seen from examples."""
    origin: str | None = None
    """The hash of the model's folder, which the file that is written names."""

    @cached_property
    def _by_size(self) -> list[int]:
        """Examples by how many numbers they have."""
        return sorted(range(self.count), key=lambda index: sum(value.numel() for value in self.batch([index]).values()))

    @cached_property
    def longest(self) -> Named:
        """A batch of three, of the longest example."""
        return self.batch([self._by_size[-1]] * 3)

    @cached_property
    def free(self) -> Free:
        """Of each input the axes whose size is free: those in which two of the shortest example and three of the longest differ."""
        return self.axes or differing(self.batch([self._by_size[0]] * 2), self.longest)


def handed_on(network: AnyNetwork, preprocessor: Preprocessor, table: pa.Table) -> Trial:
    """A saved model as it is handed on, with the rows of a table as examples."""
    inputs = preprocessor.inputs
    if isinstance(network, Recommender):
        return _recommender(network, table.num_rows)
    if isinstance(inputs, CausalEncoder | TalkEncoder):
        assert isinstance(network, Transformer)
        return _writer(network, inputs, table)
    known = preprocessor.target is not None and preprocessor.target.column in table.column_names
    target = preprocessor.target.encode(table) if known and preprocessor.target is not None else None
    examples: Examples = inputs.examples(table, target)

    def batch(ids: list[int]) -> Named:
        found = examples.batch(torch.tensor(ids)).inputs
        return {SINGLE: found} if isinstance(found, Tensor) else dict(found)

    if isinstance(network, Whisper):
        return _dictation(network, len(examples), batch)
    names = list(batch([0]))
    return Trial(module=HandedOn(network, names), count=len(examples), batch=batch, target=examples.target)


def _dictation(network: Whisper, count: int, batch: Callable[[list[int]], Named]) -> Trial:
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


def _writer(network: Transformer, encoder: CausalEncoder | TalkEncoder, table: pa.Table) -> Trial:
    """Texts, each a document of its own, filled up at their ends."""
    if isinstance(encoder, CausalEncoder):
        texts = [ids[: encoder.limit].tolist() for ids in encoder.documents(table) if len(ids) > 1]
    else:
        examples = encoder.examples(table, None)
        texts = [list(entry.ids) for entry in examples.conversations]  # pyright: ignore[reportAttributeAccessIssue]  of conversations

    def batch(ids: list[int]) -> Named:
        longest = max(len(texts[index]) for index in ids)
        tokens, mask = torch.zeros(2, len(ids), longest, dtype=torch.int64).unbind(0)
        for row, index in enumerate(ids):
            tokens[row, : len(texts[index])] = torch.tensor(texts[index])
            mask[row, : len(texts[index])] = 1
        return {"input_ids": tokens, "attention_mask": mask}

    return Trial(
        module=HandedOn(network, ["input_ids", "attention_mask"]),
        count=len(texts),
        batch=batch,
        target=None,
        tokenizer=encoder.tokenizer,
    )


def _recommender(network: Recommender, count: int) -> Trial:
    """Users by number, and made-up histories where the network looks at one."""
    facts = network.described["recommender"]
    draw = np.random.default_rng(0)
    users = torch.from_numpy(draw.integers(0, facts.get("users", 1), count))
    if not network.length:
        return Trial(
            module=HandedOn(network, ["users"]), count=count, batch=lambda ids: {"users": users[ids]}, target=None
        )
    history = torch.from_numpy(draw.integers(0, facts["items"] + 1, (count, network.length)))
    names = ["users", "history"]
    return Trial(
        module=HandedOn(network, names),
        count=count,
        batch=lambda ids: {"users": users[ids], "history": history[ids]},
        target=None,
    )


def differing(one: Mapping[str, Tensor], other: Mapping[str, Tensor]) -> Free:
    """The axes in which two batches of different sizes differ."""
    return {
        name: [axis for axis in range(a.dim()) if a.shape[axis] != b.shape[axis]]
        for (name, a), b in zip(one.items(), other.values())
    }
