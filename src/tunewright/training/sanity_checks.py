"""Check that anything is learned at all, once near the start and after each epoch, so that steps stay fast.

A run in which no weight has changed since its first step is a mistake, and fails. One that changed and then stands still, at
whatever loss, has nothing more to gain: it ends early with a message.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import torch
from torch import Tensor

from tunewright.errors import NothingLearned
from tunewright.training.distributed.dtensors import all_reduce_found, local_shard

# The step after which gradients, and changes since the start, are checked: by then a warm-up has begun, and
# LoRA's A, whose gradient is zero in the first step because B is, has one too.
LOOKED_AT = 3
# A loss that is exactly the same so many times in a row does not depend on what is learned: batches differ.
SAME = 100
# Steps at a smaller share of the peak learning rate, at the beginning of a long warm-up, need not change anything.
WARM = 0.01
# Below this loss there is nothing left to learn.
LEARNED = 1e-6


def weights_digest(parameters: Sequence[Tensor]) -> str:
    """Return a digest of all values; a change in any of them almost certainly changes the digest.

    The sum of the values' bits as integers: one pass over the weights, and one transfer from the device.
    """
    with torch.no_grad():
        sums = torch.stack([_bits(local_shard(value)).sum(dtype=torch.int64) for value in parameters])
        all_reduce_found(sums, parameters)
    return hashlib.sha256(sums.cpu().numpy().tobytes()).hexdigest()


def _values(gradient: Tensor) -> Tensor:
    return gradient.coalesce().values() if gradient.is_sparse else gradient


def require_gradient(parameters: Sequence[Tensor], loss: float, place: str) -> None:
    """Check that the loss reaches at least one of the tensors that are trained now.

    Raises:
        NothingLearned: every gradient is missing or zero, and the loss is not.
    """
    trained = [value for value in parameters if value.requires_grad]
    gradients = [value.grad for value in trained if value.grad is not None]
    found = torch.stack([_values(local_shard(gradient)).any() for gradient in gradients]).any() if gradients else None
    alive = found is not None and bool(all_reduce_found(found.int(), gradients))
    if alive or abs(loss) <= LEARNED:
        return
    raise NothingLearned(
        "no gradient reaches what is to be trained",
        place=place,
        found=f"{len(trained) - len(gradients)} of {len(trained)} tensors without a gradient, the others' are zero",
        expected="a gradient in at least one trained tensor",
        fix="freeze less (tune.freeze), or look at the layers above the trained ones: an activation may be dead",
    )


def require_connected(loss: Tensor, place: str) -> None:
    """Check that the loss depends on what is trained.

    Raises:
        NothingLearned: it does not.
    """
    if not loss.requires_grad:
        raise NothingLearned(
            "the loss does not depend on anything that is trained",
            place=place,
            found="a loss without a gradient",
            expected="a loss that is computed from the trained layers",
            fix="freeze less (tune.freeze), or train the head",
        )


def require_movement(before: str, parameters: Sequence[Tensor], rate: float, place: str) -> None:
    """Check that some weight has changed since the start.

    Args:
        before: `weights_digest` at the start.
        rate: the largest learning rate since then, for the message.

    Raises:
        NothingLearned: no weight has changed.
    """
    if weights_digest(parameters) == before:
        raise NothingLearned(
            "no weight has changed since training began",
            place=place,
            found=f"a learning rate of up to {rate:.3g}, too small a step for any weight to change in float32",
            expected="weights that move",
            fix="raise train.lr, raise train.clip_norm if it is set, or freeze less (tune.freeze)",
        )


def same_loss(times: int, loss: float, as_at_first: bool, place: str) -> str | None:
    """Judge a loss that has been exactly the same for `times` steps; None: too early to say.

    Args:
        as_at_first: whether it equals the loss of the first step.

    Returns:
        Why training is over.

    Raises:
        NothingLearned: the loss has never been another one.
    """
    if times < SAME or abs(loss) <= LEARNED:
        return None
    if as_at_first:
        raise NothingLearned(
            f"the loss has been exactly {loss:.6g} in each of the first {times} steps",
            place=place,
            expected="a loss that differs from batch to batch",
            fix="look at the inputs (`tunewright data check`) and at the network: its output does not depend on them",
        )
    return f"the loss has been exactly {loss:.6g} for {times} steps: nothing more is learned"


def _bits(value: Tensor) -> Tensor:
    sizes = {8: torch.int64, 4: torch.int32, 2: torch.int16, 1: torch.int8}
    return value.detach().contiguous().view(sizes[value.element_size()])
