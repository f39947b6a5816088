"""Which of two answers does the network prefer, and how far has it moved from what it was?"""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor
from torch.nn import functional as F

from tunewright.data.batches.sampler import EVALUATION_BATCH, in_order
from tunewright.data.prepared import Prepared
from tunewright.evaluation.baselines import Baseline
from tunewright.models.core.network import Network, evaluating
from tunewright.models.hub.hf_network import Transformer
from tunewright.tasks.base.encoders import Encoders
from tunewright.tasks.base.evaluation import Evaluation, Measured
from tunewright.tasks.language_model.chat_evaluation import answered
from tunewright.tasks.language_model.preference_encoder import PreferenceEncoder
from tunewright.training.objectives.chunked_cross_entropy import CHUNK
from tunewright.training.objectives.preference import answer_places

# The metrics that the length of the answers has something to say of.
OF_LENGTH = ("reward_accuracy", "preference_accuracy")


def preference_outputs(
    network: Network, before: Network | None, encoder: PreferenceEncoder, table: pa.Table
) -> Measured:
    """Return what the "preferences" metrics want, for each pair: [N, 7], −log p of the chosen answer, how many of its tokens the
    largest logit names, −log p of the rejected one, both −log p by the network before, the sum over the tokens of both answers
    of the divergence from it, and the rejected answer's tokens; and [N], the chosen answer's tokens.

    The divergence of a token is KL(network ‖ before) = Σ p log(p / p₀) over all pieces that could stand there.
    """
    assert isinstance(network, Transformer) and isinstance(before, Transformer)
    device = next(network.parameters()).device
    examples = encoder.examples(table, None).to(device)
    before = before.to(device)
    outputs, target = np.zeros((table.num_rows, 7)), np.zeros(table.num_rows, np.int64)
    with evaluating(network), evaluating(before), torch.inference_mode():
        for batch in in_order(examples, EVALUATION_BATCH):
            wanted, truth, answer = answer_places(batch)
            found = _compare(network, before, batch.named, wanted, truth)
            sums = torch.zeros(2 * len(batch.ids), 5, dtype=torch.float64, device=device)
            sums = sums.index_add(0, answer, torch.cat([found, torch.ones_like(found[:, :1])], 1).double())
            chosen, rejected = sums.view(-1, 2, 5).cpu().numpy().transpose(1, 2, 0)
            columns = [chosen[0], chosen[1], rejected[0], chosen[2], rejected[2], chosen[3] + rejected[3], rejected[4]]
            outputs[batch.ids.numpy()] = np.stack(columns, axis=1)
            target[batch.ids.numpy()] = chosen[4]
    return outputs, target


def _compare(
    network: Transformer, before: Transformer, inputs: dict[str, Tensor], wanted: Tensor, truth: Tensor
) -> Tensor:
    """Return [M, 4]: for each token −log p, whether the largest logit names it, −log p by `before`, and the divergence from it."""
    parts: list[Tensor] = []
    logits_of = [_logits(model, inputs, wanted) for model in (network, before)]
    size = max(1, CHUNK // len(logits_of[0](slice(0, 1))[0]))
    for start in range(0, len(truth), size):
        part = slice(start, start + size)
        now, then = (logits(part).log_softmax(1) for logits in logits_of)
        losses = [-values.gather(1, truth[part, None])[:, 0] for values in (now, then)]
        right = (now.argmax(1) == truth[part]).float()
        parts.append(torch.stack([losses[0], right, losses[1], (now.exp() * (now - then)).sum(1)], dim=1))
    return torch.cat(parts)


def _logits(model: Transformer, inputs: dict[str, Tensor], wanted: Tensor):
    """A function that gives the logits of some of the tokens that are `wanted`, so that not all are held at once."""
    weight = model.output_weight
    if weight is None:
        every = model(inputs)[wanted]
        return lambda part: every[part]
    states, dtype = model.hidden(inputs)[wanted], torch.bfloat16 if model.reduced else torch.float32
    return lambda part: F.linear(states[part].to(dtype), weight.to(dtype)).float()


def length_baseline(encoder: PreferenceEncoder, train: pa.Table, table: pa.Table) -> list[Baseline]:
    """Return what the lengths of the answers alone say: people, and models that judge, often prefer the longer one."""
    texts = encoder.examples(table, None).texts.conversations
    lengths = np.array([sum(entry.trained) for entry in texts], np.float64).reshape(-1, 2)
    outputs = np.zeros((len(lengths), 7))
    outputs[:, [0, 2]] = -lengths
    return [
        Baseline(name="the longer answer", outputs=outputs, metrics=OF_LENGTH),
    ]


class PreferenceEvaluation(Evaluation):
    """Of two answers the better one is preferred."""

    kind = "preferences"

    def outputs(self, network: Network, before: Network | None, preprocessor: Encoders, table: pa.Table) -> Measured:
        return preference_outputs(network, before, preprocessor.inputs_as(PreferenceEncoder), table)

    def predictions(self, network: Network, preprocessor: Encoders, table: pa.Table) -> list[dict[str, Any]]:
        return answered(network, preprocessor.inputs_as(PreferenceEncoder), table)

    def baselines(self, preprocessor: Encoders, prepared: Prepared, table: pa.Table, seed: int) -> list[Baseline]:
        train = self.sampled(preprocessor, prepared, seed)
        return length_baseline(preprocessor.inputs_as(PreferenceEncoder), train, table)
