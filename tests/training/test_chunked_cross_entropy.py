"""Chunked cross entropy: the loss and the gradients of the plain one, whatever the chunk; packing weighs tokens alike."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from gpt_networks import gpt_network
from tunewright.data.batches.packing import IGNORED, PackedExamples, pack
from tunewright.data.batches.sampler import Batches
from tunewright.training.objectives import chunked_cross_entropy as token_loss
from tunewright.training.objectives.causal_lm import CausalLMLoss
from tunewright.training.objectives.chunked_cross_entropy import token_loss_sum, token_losses


def drawn(count: int = 37, width: int = 16, pieces: int = 50) -> tuple[Tensor, Tensor, Tensor]:
    torch.manual_seed(0)
    hidden = torch.randn(count, width, requires_grad=True)
    weight = torch.randn(pieces, width, requires_grad=True)
    targets = torch.randint(0, pieces, (count,))
    targets[::5] = IGNORED
    return hidden, weight, targets


@pytest.mark.parametrize("z_loss", [0.0, 0.01])
@pytest.mark.parametrize("chunk", [1, 200, 10**6])
def test_it_is_the_plain_loss(monkeypatch: pytest.MonkeyPatch, chunk: int, z_loss: float) -> None:
    monkeypatch.setattr(token_loss, "CHUNK", chunk)
    hidden, weight, targets = drawn()
    logits = hidden @ weight.t()
    sums = logits.logsumexp(1)[targets != IGNORED]
    plain = F.cross_entropy(logits, targets, ignore_index=IGNORED, reduction="sum") + z_loss * sums.square().sum()
    expected = torch.autograd.grad(3 * plain, (hidden, weight))
    found = token_loss_sum(hidden, weight, targets, z_loss=z_loss)
    assert torch.allclose(found, plain, rtol=1e-5)
    for one, other in zip(torch.autograd.grad(3 * found, (hidden, weight)), expected, strict=True):
        assert torch.allclose(one, other, rtol=1e-4, atol=1e-5)


def test_a_frozen_matrix_gets_no_gradient() -> None:
    hidden, weight, targets = drawn()
    token_loss_sum(hidden, weight.detach(), targets).backward()
    assert hidden.grad is not None and weight.grad is None


def test_nothing_to_foretell() -> None:
    hidden, weight, targets = drawn()
    found = token_loss_sum(hidden, weight, torch.full_like(targets, IGNORED))
    found.backward()
    assert found.item() == 0 and hidden.grad is not None and not hidden.grad.any()


def test_each_loss_and_whether_it_is_right() -> None:
    hidden, weight, targets = drawn()
    kept = targets != IGNORED
    losses, right = token_losses(hidden[kept].detach(), weight.detach(), targets[kept], dtype=torch.float32)
    logits = (hidden @ weight.t())[kept]
    assert torch.allclose(losses, F.cross_entropy(logits, targets[kept], reduction="none"), atol=1e-5)
    assert torch.equal(right, logits.argmax(1) == targets[kept])


def documents() -> list[np.ndarray]:
    sizes = [13, 1, 30, 2, 8, 0, 21]
    draw = np.random.Generator(np.random.Philox(key=3))
    return [draw.integers(5, 50, size) for size in sizes]


@pytest.mark.parametrize("epoch", [None, 0, 1, 5])
def test_every_token_once_and_no_pair_across_documents(epoch: int | None) -> None:
    texts = documents()
    packed = pack(texts, torch.arange(1, 8), context=9)
    batch = packed.batch(torch.arange(len(packed)), epoch)
    ids, target = batch.named["input_ids"], batch.target
    assert target is not None and ids.shape == target.shape == (8, 9)
    # Within documents each pair of neighbours that is not cut by a row's end is there once.
    found = sorted(
        (int(ids[row, place]), int(target[row, place])) for row, place in (target != IGNORED).nonzero().tolist()
    )
    pairs = sorted((int(a), int(b)) for text in texts for a, b in zip(text, text[1:]))
    assert len(pairs) - len(packed) <= len(found) <= len(pairs)
    remaining = list(pairs)
    for pair in found:
        remaining.remove(pair)
    # Positions count from a document's or the row's beginning.
    for row in range(8):
        for place in range(9):
            same = bool(place and batch.named["document"][row, place] == batch.named["document"][row, place - 1])
            assert batch.named["position"][row, place] == (batch.named["position"][row, place - 1] + 1 if same else 0)


def test_epochs_are_cut_elsewhere() -> None:
    packed = pack(documents(), torch.arange(1, 8), context=9)
    rows = [packed.batch(torch.arange(len(packed)), epoch).named["input_ids"] for epoch in (1, 2, 1)]
    assert torch.equal(rows[0], rows[2]) and not torch.equal(rows[0], rows[1])


def gradients(rows: list[PackedExamples], accumulate: int, size: int) -> dict[str, Tensor]:
    """Of the mean loss over all tokens of all rows, added up over micro-batches."""
    network = gpt_network().train()
    objective = CausalLMLoss(z_loss=0.0)
    steps = [
        batch
        for part in rows
        for step in Batches(examples=part, batch_size=size, accumulate=accumulate, seed=0).steps(0)
        for batch in step
    ]
    weight = sum(objective.weight(batch) for batch in steps)
    for batch in steps:
        (objective.loss_sum(network, batch, 0) / weight).backward()
    return {name: value.grad for name, value in network.named_parameters() if value.grad is not None}


def test_packed_unpacked_and_accumulated_gradients_agree() -> None:
    texts = [text for text in documents() if len(text) > 1]
    # One row that holds all of them, so that no pair is cut; each by itself; and in micro-batches of one row.
    length = sum(map(len, texts))
    packed = gradients([pack(texts, torch.arange(len(texts)), context=min(39, length))], 1, 8)
    alone = [pack([text], torch.arange(1), context=len(text) - 1) for text in _cut(texts, 40)]
    unpacked = gradients(alone, 1, 1)
    accumulated = gradients([pack(texts, torch.arange(len(texts)), context=min(39, length))], 4, 1)
    for name, value in packed.items():
        assert torch.allclose(unpacked[name], value, atol=1e-5), name
        assert torch.allclose(accumulated[name], value, atol=1e-5), name


def _cut(texts: list[np.ndarray], length: int) -> list[np.ndarray]:
    """The texts, cut where a row of `length` tokens ends."""
    found, place = [], 0
    for text in texts:
        while len(text):
            room = length - place % length
            if len(text[:room]) > 1:
                found.append(text[:room])
            place += len(text[:room])
            text = text[room:]
    return found
