"""Several processes that train one model: each takes its part of every batch, and their gradients are added up (data parallelism).

All that is parallel stands here, outside of models and loop. The loss of a step is still one weighted mean over the whole batch, so the
same recipe gives the same steps with any number of processes, up to the order in which numbers are added (and up to dropout, which each
process draws for itself). Processes talk by torch.distributed, and are started by torchrun or by `tunewright run`.
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any

import torch
from torch import Tensor, distributed, nn

from tunewright.training.distributed.dtensors import is_sharded

# How long one process waits for another, which may prepare data or measure meanwhile.
PATIENCE = timedelta(hours=6)
# Gradients are added up in pieces of so many numbers: one by one each would wait for the network.
PIECE = 2**24


@dataclass(frozen=True, kw_only=True)
class ProcessGroup:
    """This process among all that train together.

    rank: its number, from 0; the first one alone writes files and says something.
    """

    rank: int
    size: int
    device: torch.device
    group: distributed.ProcessGroup | None = None
    """What its messages go through; None: what all processes met in."""

    @property
    def is_writer(self) -> bool:
        return self.rank == 0

    def all_reduce_sum(self, *values: float) -> list[float]:
        """The sums over all processes."""
        found = torch.tensor(values, dtype=torch.float64)
        self.all_reduce(found)
        return found.tolist()

    def all_reduce(self, numbers: Tensor) -> None:
        """Every number becomes its sum over all processes."""
        there = numbers.to(self.device)
        distributed.all_reduce(there, group=self.group)
        if there is not numbers:
            numbers.copy_(there)

    def barrier(self) -> None:
        """Go on when all have come here."""
        distributed.barrier(self.group)

    def new_group(self) -> ProcessGroup:
        """The same processes, with a line of their own through which another thread can talk, in the processor's memory. Collective."""
        return replace(self, device=torch.device("cpu"), group=distributed.new_group(backend="gloo"))

    def any(self, flag: bool) -> bool:
        """Whether it is true for one of them."""
        return self.all_reduce_sum(float(flag))[0] > 0

    def all_reduce_gradients(self, parameters: list[nn.Parameter]) -> None:
        """Every parameter's gradient becomes the sum over all processes; one that had none of the batch's examples adds zeros.

        Those of divided parameters come added up.
        """
        moving = [value for value in parameters if value.requires_grad and not is_sharded(value)]
        for value in moving:
            if value.grad is None:
                value.grad = torch.zeros_like(value)
        held: list[Tensor] = []
        for value in moving:
            assert value.grad is not None
            held.append(value.grad)
            if sum(grad.numel() for grad in held) >= PIECE:
                self._sum(held)
                held = []
        self._sum(held)

    def _sum(self, grads: list[Tensor]) -> None:
        if not grads:
            return
        flat = torch.cat([grad.flatten() for grad in grads])
        distributed.all_reduce(flat, group=self.group)
        for grad, part in zip(grads, flat.split([grad.numel() for grad in grads])):
            grad.copy_(part.view_as(grad))

    def broadcast(self, value: Any) -> Any:
        """What the first process gives, as JSON; the others' own is not looked at."""
        raw = json.dumps(value).encode() if self.is_writer else b""
        length = torch.tensor([len(raw)], device=self.device)
        distributed.broadcast(length, 0, group=self.group)
        content = torch.empty(int(length), dtype=torch.uint8, device=self.device)
        if self.is_writer:
            content.copy_(torch.frombuffer(bytearray(raw), dtype=torch.uint8))
        distributed.broadcast(content, 0, group=self.group)
        return value if self.is_writer else json.loads(bytes(content.cpu().numpy()))


def join() -> ProcessGroup | None:
    """Meet the other processes, as the environment that torchrun sets says; None: there are none."""
    size = int(os.environ.get("WORLD_SIZE", "1"))
    if size < 2:
        return None
    cuda = torch.cuda.is_available()
    place = int(os.environ.get("LOCAL_RANK", "0"))
    if cuda:
        torch.cuda.set_device(place)
    # What waits in the processor's memory is added up there. Who started the processes may have let them meet already.
    if not distributed.is_initialized():
        distributed.init_process_group("cpu:gloo,cuda:nccl" if cuda else "gloo", timeout=PATIENCE)
    device = torch.device("cuda", place) if cuda else torch.device("cpu")
    return ProcessGroup(rank=int(os.environ["RANK"]), size=size, device=device)


def leave(group: ProcessGroup) -> None:
    """Leave the group, when all processes have come here."""
    group.barrier()  # nobody goes while another one still listens
    distributed.destroy_process_group()
