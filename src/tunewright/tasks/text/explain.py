"""Explain an answer about a text by its words."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pyarrow as pa
import torch
from torch import Tensor, nn

from tunewright.errors import ArtifactError, DataError
from tunewright.evaluation.attribution import Explained
from tunewright.models.core.network import Network
from tunewright.models.hub.attention_rollout import attention_rollout
from tunewright.models.hub.hf_network import Transformer
from tunewright.tasks.base.encoders import Encoders
from tunewright.tasks.base.explain import Question, explained_quantity, numeric_question
from tunewright.tasks.text.encoder import TextEncoder


def explain_text(network: Network, preprocessor: Encoders, table: pa.Table, wanted: str | None) -> Question:
    encoder = preprocessor.inputs
    assert isinstance(encoder, TextEncoder)
    inputs = encoder.examples(table, None).batch(torch.tensor([0])).named
    ids = inputs["input_ids"][0]
    special = torch.isin(ids, torch.tensor(sorted(set(encoder.tokenizer.all_special_ids))))
    f, said, what = explained_quantity(network, preprocessor, inputs, wanted)
    return token_question(network, encoder.tokenizer, inputs, ~special, f, said, what)


def token_question(
    network: Network,
    tokenizer: Any,
    inputs: dict[str, Tensor],
    counts: Tensor,
    f: Callable[[Tensor], Tensor],
    said: Sequence[str],
    what: Sequence[str],
) -> Question:
    """Return the question about the tokens [T] that count; the others are always there."""
    if not isinstance(network, Transformer):
        raise ArtifactError("only encoders of the Transformers library are explained", found=type(network).__name__)
    table = network.core.get_input_embeddings()
    assert isinstance(table, nn.Embedding)
    if not counts.any():
        raise DataError("there is no token to explain", fix="give a text with words")
    whole = table.weight[inputs["input_ids"][0]].detach()
    mask = tokenizer.mask_token_id
    nothing = (table.weight.mean(0) if mask is None else table.weight[mask]).detach().expand_as(whole)
    unit = torch.where(counts, counts.cumsum(0) - 1, -1)
    group = unit[:, None].expand_as(whole)

    def outputs(embedded: Tensor) -> Tensor:
        hook = table.register_forward_hook(lambda _module, _inputs, _output: embedded)
        try:
            return f(network({name: value.expand(len(embedded), -1) for name, value in inputs.items()}))
        finally:
            hook.remove()

    value, along = numeric_question(whole, nothing, group, int(counts.sum()), outputs)
    names = [tokenizer.decode([token]).strip() or "␣" for token in inputs["input_ids"][0][counts].tolist()]
    absent = "the mean of all embeddings" if mask is None else tokenizer.mask_token
    explained = Explained(
        units=names,
        value=value,
        along=along,
        what=what,
        absent=absent,
        attended=lambda: attention_rollout(network, inputs)[counts],
    )
    return Question(explained=explained, answer=said, usual="shapley", look="text")
