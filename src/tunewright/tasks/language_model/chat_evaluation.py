"""How well a chat model gives the answers of conversations that it has not seen: token by token, and word for word."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor

from tunewright.data.batches.packing import IGNORED
from tunewright.data.batches.sampler import EVALUATION_BATCH, in_order
from tunewright.data.prepared import Prepared
from tunewright.data.text.conversations import is_turns
from tunewright.evaluation.baselines import Baseline
from tunewright.evaluation.outputs import add_tokens
from tunewright.models.core.network import Network, evaluating
from tunewright.models.hub.generate import generate
from tunewright.models.hub.hf_network import Transformer
from tunewright.tasks.base.encoders import Encoders
from tunewright.tasks.base.evaluation import Evaluation, Measured
from tunewright.tasks.language_model.chat_encoder import ChatEncoder, ChatExamples, SupervisedChatEncoder
from tunewright.tasks.language_model.chat_template import Rendered
from tunewright.tasks.language_model.evaluation import token_outputs

# Tokens of an answer at most.
ANSWERED = 256


def answer_outputs(
    network: Network, before: Network | None, encoder: SupervisedChatEncoder, table: pa.Table
) -> Measured:
    """Return what the "answers" metrics want, for each conversation: [N, 2], the sum of −log p of the assistant's tokens and how
    many of them the largest logit names; and [N], how many there are.

    Where all of them are named, writing the likeliest token each time gives the very answer, end of turn included.
    """
    return token_sums(network, encoder.rendered(table), torch.tensor(np.asarray(table["_row"])))


def answers_by_byte(network: Network, encoder: SupervisedChatEncoder, table: pa.Table) -> Measured:
    """Return what `bits_per_byte` wants, for each conversation: [N, 3], as `answer_outputs`, and the UTF-8 bytes of what the
    assistant says. The network reads as much of it as it can: no less than another because a recipe says so."""
    outputs, counts = answer_outputs(network, None, replace(encoder, max_length=encoder.limit), table)
    sizes = [
        sum(len(turn.content.encode()) for turn in turns if turn.role == "assistant")
        for turns in encoder.conversations(table)
    ]
    return np.concatenate([outputs, np.array(sizes, np.float64)[:, None]], 1), counts


def token_sums(network: Network, conversations: list[Rendered], rows: Tensor) -> Measured:
    """Of each conversation's trained tokens: [N, 2], the sum of −log p and how many the largest logit names; and [N], how many
    there are.

    Args:
        rows: [N] int64, the number of each.
    """
    assert isinstance(network, Transformer)
    alone = ChatExamples(
        conversations=conversations,
        numbers=rows,
        bins=[[index] for index in range(len(rows))],
        device=next(network.parameters()).device,
    )
    outputs, target = np.zeros((len(rows), 2)), np.zeros(len(rows), np.int64)
    with evaluating(network), torch.inference_mode():
        for batch in in_order(alone, EVALUATION_BATCH):
            assert batch.target is not None
            counts = batch.target != IGNORED
            losses, right = token_outputs(
                network, {"input_ids": batch.named["input_ids"]}, counts, batch.target[counts]
            )
            place = batch.ids[counts.nonzero()[:, 0].cpu()].numpy()
            add_tokens(outputs, target, place, losses, right)
    return outputs, target


def answer_baselines(encoder: SupervisedChatEncoder, train: pa.Table, table: pa.Table) -> list[Baseline]:
    """Return what the frequencies of the tokens of training answers alone give."""
    size = len(encoder.tokenizer)
    seen, wanted = (
        [[token for token, trained in zip(entry.ids, entry.trained) if trained] for entry in encoder.rendered(part)]
        for part in (train, table)
    )
    counts = np.bincount(np.concatenate([*seen]).astype(np.int64), minlength=size) + 1.0
    chances = counts / counts.sum()
    commonest = int(counts.argmax())
    outputs = [[-np.log(chances[tokens]).sum(), tokens.count(commonest)] for tokens in wanted]
    return [Baseline(name="token frequencies", outputs=np.array(outputs, np.float64))]


def answered(network: Network, encoder: ChatEncoder, table: pa.Table) -> list[dict[str, Any]]:
    """For each row {"answer": …}: the likeliest token each time. A row is a question, or a conversation as JSON."""
    assert isinstance(network, Transformer)
    (name,) = (name for name in table.column_names if name != "_row")
    found: list[dict[str, Any]] = []
    for cell in table[name].cast(pa.string()).to_pylist():
        ids = encoder.tokenizer.apply_chat_template(
            _messages(cell or ""), add_generation_prompt=True, return_dict=False
        )
        new = generate(network, ids, end=encoder.ends, most=ANSWERED, context=encoder.limit)
        found.append({"answer": encoder.tokenizer.decode(list(new), skip_special_tokens=True).strip()})
    return found


def _messages(cell: str) -> list[dict[str, str]]:
    try:
        value: Any = json.loads(cell) if cell[:1] == "[" else None
    except ValueError:
        value = None
    turns: list[dict[str, str]] = value if is_turns(value) else [{"role": "user", "content": cell}]
    return turns


class AnswerEvaluation(Evaluation):
    """The answers of conversations are given."""

    kind = "answers"
    zero_shot = "bits_per_byte"

    def outputs(self, network: Network, before: Network | None, preprocessor: Encoders, table: pa.Table) -> Measured:
        return answer_outputs(network, before, preprocessor.inputs_as(SupervisedChatEncoder), table)

    def predictions(self, network: Network, preprocessor: Encoders, table: pa.Table) -> list[dict[str, Any]]:
        return answered(network, preprocessor.inputs_as(SupervisedChatEncoder), table)

    def baselines(self, preprocessor: Encoders, prepared: Prepared, table: pa.Table, seed: int) -> list[Baseline]:
        train = self.sampled(preprocessor, prepared, seed)
        return answer_baselines(preprocessor.inputs_as(SupervisedChatEncoder), train, table)

    def untrained(self, network: Network, preprocessor: Encoders, table: pa.Table) -> Measured:
        return answers_by_byte(network, preprocessor.inputs_as(SupervisedChatEncoder), table)
