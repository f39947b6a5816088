"""What a model is outside of Tunewright: tensors in, tensors out, by name; and real tensors to try it with."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor, nn

from tunewright.data.batching import Examples
from tunewright.errors import ArtifactError
from tunewright.models.network import AnyNetwork
from tunewright.models.recommender import Recommender
from tunewright.models.transformer import Transformer
from tunewright.models.whisper import Whisper
from tunewright.tasks.base import Preprocessor
from tunewright.tasks.causal_tokens import CausalEncoder
from tunewright.tasks.chat_tokens import TalkEncoder

# Inputs by name, and what they are called where there is one tensor.
Named = dict[str, Tensor]
SINGLE = "inputs"


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


def handed_on(network: AnyNetwork, preprocessor: Preprocessor, table: pa.Table) -> Trial:
    """A saved model as it is handed on, with the rows of a table as examples.

    Raises:
        ArtifactError: the network writes one token after the other, with a memory that has no place in a file of operations.
    """
    if isinstance(network, Whisper):
        raise ArtifactError(
            "Whisper hears once and then writes token by token, which is no single pass",
            expected="a network with one pass, such as deepspeech or conformer",
            fix="its folder opens with transformers",
        )
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

    names = list(batch([0]))
    return Trial(module=HandedOn(network, names), count=len(examples), batch=batch, target=examples.target)


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


def differing(one: Mapping[str, Tensor], other: Mapping[str, Tensor]) -> list[list[int]]:
    """Of each input the axes in which two batches of different sizes differ: those that a caller may choose."""
    return [
        [axis for axis in range(a.dim()) if a.shape[axis] != b.shape[axis]]
        for a, b in zip(one.values(), other.values())
    ]
