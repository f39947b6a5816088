"""How well a masked language model names hidden tokens; and what it would put into the gaps of a text."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from tunewright.data.batches.batch import Batch
from tunewright.data.batches.examples import TokenExamples
from tunewright.data.batches.sampler import EVALUATION_BATCH, in_order
from tunewright.data.prepared import Prepared
from tunewright.evaluation.baselines import Baseline, token_frequencies
from tunewright.evaluation.outputs import add_tokens
from tunewright.models.core.network import Network
from tunewright.models.language.masked_positions import WANTED
from tunewright.tasks.base.encoders import Encoders
from tunewright.tasks.base.evaluation import Evaluation, Measured
from tunewright.tasks.text.encoder import TextEncoder
from tunewright.training.objectives.masked_lm import MaskedLMLoss

# The share that is hidden, and the seed of which: the same for every model, so that two can be compared.
RATIO = 0.15
SEED = 0
FILLINGS = 5


def hidden_token_outputs(network: Network, before: Network | None, encoder: TextEncoder, table: pa.Table) -> Measured:
    """Return what the "tokens" metrics want, for each text: [N, 2], the sum of −log p of its hidden tokens and how many of them
    the largest logit names; and [N], how many were hidden."""
    examples, texts = _examples(encoder, table)
    outputs, target = np.zeros((table.num_rows, 2)), np.zeros(table.num_rows, np.int64)
    device = next(network.parameters()).device
    hiding = MaskedLMLoss(seed=SEED, ratio=RATIO, vocabulary=encoder.vocabulary.to(device))
    network.eval()
    with torch.inference_mode():
        for batch in in_order(examples.to(device), EVALUATION_BATCH):
            inputs, hidden = hiding.hide(batch, 0)
            logits, truth = network(inputs), batch.named["input_ids"][hidden]
            losses, right = cross_entropy(logits, truth, reduction="none"), logits.argmax(1) == truth
            add_tokens(outputs, target, _places(texts, batch, hidden), losses, right)
    return outputs, target


def frequency_baseline(encoder: TextEncoder, train: pa.Table, table: pa.Table) -> list[Baseline]:
    """Return what the token frequencies of training texts alone say of the same hidden tokens."""
    vocabulary = encoder.vocabulary
    known = encoder.examples(train, None).tokens.values
    examples, texts = _examples(encoder, table)
    hiding = MaskedLMLoss(seed=SEED, ratio=RATIO, vocabulary=vocabulary)
    truth: list[np.ndarray] = []
    places: list[np.ndarray] = []
    for batch in in_order(examples, EVALUATION_BATCH):
        _, hidden = hiding.hide(batch, 0)
        truth.append(batch.named["input_ids"][hidden].numpy())
        places.append(_places(texts, batch, hidden))
    ordinary = known[~torch.isin(known, vocabulary.special)].numpy()
    pieces = len(encoder.tokenizer)
    return [token_frequencies(ordinary, np.concatenate(truth), np.concatenate(places), table.num_rows, pieces)]


def fill_masks(network: Network, encoder: TextEncoder, table: pa.Table) -> list[dict[str, Any]]:
    """For each text {"masks": …}: for each [MASK] in it the likeliest tokens with their probabilities, best first."""
    examples, texts = _examples(encoder, table)
    found: list[list[list[dict[str, Any]]]] = [[] for _ in range(table.num_rows)]
    mask = encoder.vocabulary.mask
    device = next(network.parameters()).device
    network.eval()
    with torch.inference_mode():
        for batch in in_order(examples.to(device), EVALUATION_BATCH):
            wanted = batch.named["input_ids"] == mask
            best = network({**batch.named, WANTED: wanted}).softmax(1).topk(FILLINGS)
            gaps = zip(_places(texts, batch, wanted), best.values.tolist(), best.indices.tolist(), strict=True)
            for place, chances, pieces in gaps:
                names = [encoder.tokenizer.decode([piece]).strip() for piece in pieces]
                found[place].append([{"token": n, "probability": p} for n, p in zip(names, chances, strict=True)])
    return [{"masks": gaps} for gaps in found]


def _examples(encoder: TextEncoder, table: pa.Table) -> tuple[TokenExamples, np.ndarray]:
    """Return the texts' passages, and for each the position of its text in the table."""
    examples = encoder.examples(table, None)
    position = {row: index for index, row in enumerate(table["_row"].to_pylist())}
    return examples, np.array([position[row] for row in examples.rows.tolist()], np.int64)


def _places(texts: np.ndarray, batch: Batch, chosen: Tensor) -> np.ndarray:
    """For each chosen token [M] the position of its text in the table."""
    return texts[batch.ids[chosen.cpu().nonzero()[:, 0]].numpy()]


class MaskedEvaluation(Evaluation):
    """Tokens that are hidden are named."""

    kind = "tokens"

    def outputs(self, network: Network, before: Network | None, preprocessor: Encoders, table: pa.Table) -> Measured:
        return hidden_token_outputs(network, before, preprocessor.inputs_as(TextEncoder), table)

    def predictions(self, network: Network, preprocessor: Encoders, table: pa.Table) -> list[dict[str, Any]]:
        return fill_masks(network, preprocessor.inputs_as(TextEncoder), table)

    def baselines(self, preprocessor: Encoders, prepared: Prepared, table: pa.Table, seed: int) -> list[Baseline]:
        train = self.sampled(preprocessor, prepared, seed)
        return frequency_baseline(preprocessor.inputs_as(TextEncoder), train, table)
