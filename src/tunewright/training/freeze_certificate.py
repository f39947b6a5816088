"""Verify what stayed frozen: a fingerprint of every tensor before and after training."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from tunewright.models.hub.quantization import size
from tunewright.runs.summary.model import CertificateSummary, FrozenBlock, TrainedBlock
from tunewright.training.distributed.dtensors import all_gather, is_sharded, local_shard
from tunewright.training.freezing import TrainablePlan, is_trained, may_change


def fingerprint(model: nn.Module) -> dict[str, str]:
    """Return the SHA-256 of each parameter and buffer, by name.

    The fingerprint of a sharded tensor is the hash of the hashes of its shards. Collective then.
    """
    state = model.state_dict()
    found = {name: hashlib.sha256(_content(local_shard(tensor))).digest() for name, tensor in state.items()}
    if any(map(is_sharded, state.values())):
        own = torch.frombuffer(bytearray(b"".join(found.values())), dtype=torch.uint8).view(len(found), -1)
        parts = torch.stack(all_gather(own), dim=1)  # [tensors, processes, bytes]
        found = {name: hashlib.sha256(_content(each)).digest() for name, each in zip(found, parts)}
    return {name: digest.hex() for name, digest in found.items()}


def certify(
    movements: Sequence[TrainablePlan], before: dict[str, str], after: dict[str, str], epochs: int
) -> CertificateSummary:
    """Return the freeze certificate: frozen tensors are bit-identical to their source, and trained ones have changed.

    Args:
        before, after: `fingerprint` of the model at the start of the stage and at its end.
        epochs: how many epochs were run; a block that would have been unfrozen later counts as frozen.

    Returns:
        One entry for each block. A frozen block is `identical` when every parameter and buffer (BatchNorm statistics too) has the same bytes. A trained
        parameter without any change does not fail the certificate, but is named.
    """
    frozen: list[FrozenBlock] = []
    trained: list[TrainedBlock] = []
    warnings: list[str] = []
    for movement in movements:
        block = movement.block
        names = [name for name in before if name.startswith(block.prefix) and name not in block.elsewhere]
        moves = is_trained(movement, epochs - 1)
        learned = [name for name in names if moves and may_change(movement, name)]
        if learned:
            unchanged = [name for name in learned if name in movement.moving and after[name] == before[name]]
            moved = sum(name in movement.moving for name in learned)
            count = sum(value.numel() for value in movement.parameters)
            trained.append(
                TrainedBlock(
                    block=block.title,
                    tensors=len(learned),
                    parameters=count,
                    changed=moved - len(unchanged),
                    unchanged=unchanged,
                )
            )
            warnings += [f"{name} was trained but did not change" for name in unchanged]
        if still := [name for name in names if name not in learned]:
            altered = [name for name in still if after[name] != before[name]]
            count = sum(size(value) for name, value in block.parameters().items() if name in still)
            frozen.append(FrozenBlock(block=block.title, tensors=len(still), parameters=count, identical=not altered))
            warnings += [f"{name} was frozen but changed" for name in altered]
    return CertificateSummary(
        frozen=frozen,
        trained=trained,
        passed=all(entry.identical for entry in frozen),
        warnings=warnings,
    )


def _content(tensor: Tensor) -> bytes:
    return tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()
