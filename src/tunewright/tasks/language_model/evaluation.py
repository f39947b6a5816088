"""Measure how well a language model predicts texts: the loss of each token given those before it, gathered by text."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor
from torch.nn import functional as F

from tunewright.data.prepared import Prepared
from tunewright.evaluation.baselines import Baseline
from tunewright.evaluation.outputs import add_tokens
from tunewright.models.core.network import Network, evaluating
from tunewright.models.hub.generate import Sampling, generate
from tunewright.models.hub.hf_network import Transformer
from tunewright.tasks.base.encoders import Encoders
from tunewright.tasks.base.evaluation import Evaluation, Measured
from tunewright.tasks.language_model.encoder import CausalEncoder
from tunewright.training.objectives.chunked_cross_entropy import token_losses

# A longer text is read in windows that overlap by half, so that each token has at least half a context before it.
STRIDE = 0.5
# Tokens of the windows that go through the network at once.
TOKENS = 16_384
# Tokens that `predict` writes after a text, and that a sample has.
CONTINUED = 64
SAMPLED = 100
SAMPLING_TEMPERATURE = 0.8
# What absolute discounting takes from each count of the baseline (Ney, Essen and Kneser 1994).
DISCOUNT = 0.75


@dataclass(frozen=True, kw_only=True)
class Window:
    """A part of a text that goes through the network at once."""

    text: int
    start: int
    """Of its tokens among the text's."""
    stop: int
    counted: int
    """The first position whose next token is counted here; those before were counted in the window before."""


def next_token_outputs(network: Network, before: Network | None, encoder: CausalEncoder, table: pa.Table) -> Measured:
    """Return what the "next_tokens" metrics want, for each text: [N, 3], the sum of −log p of its tokens, how many of them the
    largest logit names, and the text's UTF-8 bytes; and [N], how many tokens there are, its end among them."""
    assert isinstance(network, Transformer)
    documents = encoder.documents(table)
    outputs, target = np.zeros((table.num_rows, 3)), np.zeros(table.num_rows, np.int64)
    outputs[:, 2] = [len(text.encode()) for text in encoder.texts(table, encoder.column)]
    device = next(network.parameters()).device
    with evaluating(network), torch.inference_mode():
        for windows in _batches(_windows(documents, encoder.max_length)):
            longest = max(window.stop - window.start for window in windows)
            ids = torch.zeros(len(windows), longest, dtype=torch.int64)
            counts = torch.zeros(len(windows), longest, dtype=torch.bool)
            for row, window in enumerate(windows):
                length = window.stop - window.start
                ids[row, :length] = torch.from_numpy(
                    documents[window.text][window.start : window.stop].astype(np.int64)
                )
                counts[row, window.counted - window.start : length - 1] = True
            ids, counts = ids.to(device), counts.to(device)
            truth = ids[:, 1:][counts[:, :-1]]
            losses, right = token_outputs(network, {"input_ids": ids[:, :-1]}, counts[:, :-1], truth)
            place = np.array([window.text for window in windows])[counts.nonzero()[:, 0].cpu().numpy()]
            add_tokens(outputs, target, place, losses, right)
    return outputs, target


def frequencies(encoder: CausalEncoder, train: pa.Table, table: pa.Table) -> list[Baseline]:
    """Predict from counts in the training texts alone: of single tokens, and of a token after the one before."""
    known = encoder.documents(train)
    documents = encoder.documents(table)
    size = len(encoder.tokenizer)
    texts = np.repeat(np.arange(len(documents)), [max(0, len(document) - 1) for document in documents])
    before, after = _pairs(documents)
    seen_before, seen_after = _pairs(known)
    pairs, counts = np.unique(seen_before * size + seen_after, return_counts=True)
    single = np.bincount(seen_after, minlength=size) + 1.0  # each piece was seen once more than it was
    single /= single.sum()
    chances = {
        "token frequencies": single[after],
        "pairs of tokens": _after(pairs, counts, single, before, after),
    }
    best = {
        "token frequencies": np.full(size, single.argmax()),
        "pairs of tokens": _likeliest(pairs, counts, single),
    }
    bytes_of = np.array([len(text.encode()) for text in encoder.texts(table, encoder.column)], np.float64)
    found: list[Baseline] = []
    for name, chance in chances.items():
        losses = np.bincount(texts, -np.log(chance), minlength=table.num_rows)
        right = np.bincount(texts, best[name][before] == after, minlength=table.num_rows)
        found.append(Baseline(name=name, outputs=np.stack([losses, right, bytes_of], axis=1)))
    return found


def _windows(documents: list[np.ndarray], context: int) -> list[Window]:
    """Return each text whole where it fits, else in overlapping windows; the inputs are all but a window's last token."""
    step = max(1, round(context * STRIDE))
    found: list[Window] = []
    for text, tokens in enumerate(documents):
        counted = 0
        while counted < len(tokens) - 1:
            stop = min(len(tokens), context + 1 if counted == 0 else counted + step + 1)
            found.append(Window(text=text, start=max(0, stop - context - 1), stop=stop, counted=counted))
            counted = stop - 1
    return found


def _batches(windows: list[Window]) -> list[list[Window]]:
    """Windows of about one length together."""
    ordered = sorted(windows, key=lambda window: window.start - window.stop)
    found: list[list[Window]] = []
    while ordered:
        count = max(1, TOKENS // (ordered[0].stop - ordered[0].start))
        found.append(ordered[:count])
        ordered = ordered[count:]
    return found


def token_outputs(
    network: Transformer, inputs: dict[str, Tensor], wanted: Tensor, truth: Tensor
) -> tuple[Tensor, Tensor]:
    """Return the loss of the token after each position that is `wanted` [B, T], and whether it has the largest logit.

    Args:
        truth: [M] these tokens.
    """
    if (weight := network.output_weight) is not None:
        dtype = torch.bfloat16 if network.reduced else torch.float32
        return token_losses(network.hidden(inputs)[wanted], weight, truth, dtype=dtype)
    logits = network(inputs)[wanted]
    return F.cross_entropy(logits, truth, reduction="none"), logits.argmax(1) == truth


def _pairs(documents: list[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """Return each token but a text's last, and the one after it."""
    filled = [document for document in documents if len(document)]
    empty = np.empty(0, np.int64)
    before = np.concatenate([empty, *(document[:-1] for document in filled)])
    after = np.concatenate([empty, *(document[1:] for document in filled)])
    return before.astype(np.int64), after.astype(np.int64)


def _after(
    pairs: np.ndarray, counts: np.ndarray, single: np.ndarray, before: np.ndarray, after: np.ndarray
) -> np.ndarray:
    """p(after | before) = max(0, c(before after) − d) / c(before) + d · kinds(before) / c(before) · p(after).

    Args:
        pairs: each pair that was seen, before · V + after, in rising order; counts: how often.
    """
    size = len(single)
    total = np.bincount(pairs // size, counts, minlength=size)
    kinds = np.bincount(pairs // size, minlength=size)
    wanted = before * size + after
    place = np.minimum(np.searchsorted(pairs, wanted), max(0, len(pairs) - 1))
    count = np.where(pairs[place] == wanted, counts[place], 0) if len(pairs) else np.zeros(len(wanted))
    with np.errstate(invalid="ignore", divide="ignore"):
        found = (np.maximum(0, count - DISCOUNT) + DISCOUNT * kinds[before] * single[after]) / total[before]
    return np.where(total[before] > 0, found, single[after])


def _likeliest(pairs: np.ndarray, counts: np.ndarray, single: np.ndarray) -> np.ndarray:
    """For each token the commonest one after it; after one that was never seen the commonest of all."""
    size = len(single)
    found = np.full(size, single.argmax())
    order = np.argsort(counts, kind="stable")  # the largest last, so that it stays
    found[pairs[order] // size] = pairs[order] % size
    return found


def continued(network: Network, encoder: CausalEncoder, table: pa.Table) -> list[dict[str, Any]]:
    """For each text {"continuation": …}: what the model would write next, always its likeliest token."""
    assert isinstance(network, Transformer)
    found: list[dict[str, Any]] = []
    for text in encoder.texts(table, encoder.column):
        ids = encoder.begin + encoder.tokenizer(text, add_special_tokens=False)["input_ids"]
        new = list(generate(network, ids, end={encoder.end}, most=CONTINUED, context=encoder.limit))
        found.append({"continuation": encoder.tokenizer.decode(new)})
    return found


def written(network: Network, encoder: CausalEncoder) -> str:
    """Return what the model writes from nothing; the same draws each time, so that two samples differ by what was learned."""
    assert isinstance(network, Transformer)
    drawn = generate(
        network,
        encoder.begin,
        sampling=Sampling(temperature=SAMPLING_TEMPERATURE),
        end={encoder.end},
        most=SAMPLED,
        context=encoder.limit,
    )
    return encoder.tokenizer.decode(list(drawn))


class NextTokenEvaluation(Evaluation):
    """The next token of each text is named."""

    kind = "next_tokens"
    zero_shot = "bits_per_byte"

    def outputs(self, network: Network, before: Network | None, preprocessor: Encoders, table: pa.Table) -> Measured:
        return next_token_outputs(network, before, preprocessor.inputs_as(CausalEncoder), table)

    def predictions(self, network: Network, preprocessor: Encoders, table: pa.Table) -> list[dict[str, Any]]:
        return continued(network, preprocessor.inputs_as(CausalEncoder), table)

    def baselines(self, preprocessor: Encoders, prepared: Prepared, table: pa.Table, seed: int) -> list[Baseline]:
        train = self.sampled(preprocessor, prepared, seed)
        return frequencies(preprocessor.inputs_as(CausalEncoder), train, table)

    def sample(self, network: Network, preprocessor: Encoders) -> str:
        return written(network, preprocessor.inputs_as(CausalEncoder))
